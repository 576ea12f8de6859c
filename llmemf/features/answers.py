"""What counts as a usable answer of a language model about an item."""

from __future__ import annotations

import re
import unicodedata

USABLE = "ok"
BAD = ("empty", "refusal", "too long", "wrong language", "cut off", "filtered")
"""Verdicts on answers that came and were paid for, but give no text; each is asked for once more."""

_FUNCTION_WORDS = {
    "English": "the and of to in is for with that this who or by from are its on an as at it be their may",
    "German": "der die das und ist mit von den ein eine für zu im auf sich nicht dem des oder auch wird als bei",
    "French": "le la les des et est un une du pour dans avec qui que sur par au aux ou ce cette sont pas plus",
    "Spanish": "el la los las de y es un una del para en con que por se su al como más o este esta son no",
    "Italian": "il lo la i gli le di e è un una del della per in con che da si non al come più o questo sono nel",
    "Portuguese": "o a os as de e é um uma do da para em com que por se no na ao como mais ou este esta são não dos",
    "Dutch": "de het een en van is voor met in op te dat die niet zijn aan door of ook als bij om naar deze wordt",
}
"""Common function words of the languages that share the Latin script; some stand in several lists."""

_SCRIPTS = {
    "Chinese": ("CJK",),
    "Japanese": ("HIRAGANA", "KATAKANA", "CJK"),
    "Korean": ("HANGUL",),
    "Russian": ("CYRILLIC",),
    "Ukrainian": ("CYRILLIC",),
    "Greek": ("GREEK",),
    "Arabic": ("ARABIC",),
    "Hebrew": ("HEBREW",),
    "Hindi": ("DEVANAGARI",),
    "Thai": ("THAI",),
}

_REFUSAL = re.compile(
    r"\b(?:i(?:'m| am)? ?(?:really |very |so |truly )?sorry,? (?:but )?)?"
    r"(?:i (?:can(?:no|')?t|can not|won't|will not|am (?:not able|unable)|must decline)|i'm (?:not able|unable))"
    r"[^.]{0,40}?\b(?:help|assist|provide|comply|fulfil+|answer|create|generate|write|complete|discuss|continue|do that)"
    r"|^as an ai\b[^.]{0,80}\b(?:can(?:no|')?t|not able|unable)"
    r"|\b(?:ich kann (?:dabei|hierbei|das|diese[rs]?)[^.]{0,40}\bnicht|je ne peux pas|no puedo (?:ayudar|cumplir)"
    r"|non posso (?:aiutar|soddisfar)|não posso (?:ajudar|atender))"
    r"|我?(?:无法|不能)(?:提供|协助|回答|满足)",
    re.IGNORECASE,
)

_OPENING = r"(?:<(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)\b[^<>]*>|\[THINK\]|\u25c1think\u25b7)"
_CLOSING = r"(?:</(?:\w+:)?(?:think(?:ing)?|thoughts?|reasoning)\s*>|\[/THINK\]|\u25c1/think\u25b7)"
"""Tags around reasoning, as different models write them."""

_FINAL_CHANNEL = re.compile(
    r"<\|channel\|>\s*final\b.*?<\|message\|>(.*?)(?:<\|(?:end|return|start|call)\|>|\Z)", re.DOTALL
)


def strip_reasoning(text: str) -> str:
    """The answer without its reasoning.

    Reasoning stands between tags such as `<think>` and `</think>` (the opening or the closing one may be missing), or
    in another channel than "final" (`<|channel|>analysis<|message|>...`).
    """
    if "<|channel|>" in text:
        final = _FINAL_CHANNEL.findall(text)
        text = final[-1] if final else ""
    text = re.sub(f"{_OPENING}.*?{_CLOSING}", " ", text, flags=re.DOTALL | re.IGNORECASE)
    text = re.split(_CLOSING, text, flags=re.IGNORECASE)[-1]
    return re.split(_OPENING, text, flags=re.IGNORECASE)[0].strip()


def judge(
    content: str | None, finish_reason: str | None, *, refusal: str | None = None, language: str, words: int
) -> tuple[str, str]:
    """Check an answer.

    Args:
        content: what the model wrote, reasoning included; None if nothing.
        finish_reason: as the endpoint says: "stop", "length", "content_filter", ...
        refusal: the separate field in which some endpoints put a refusal.
        language: the language asked for, in English.
        words: the limit that the prompt states; twice as many and 40 more are let through.

    Returns:
        verdict ("ok" or one of `BAD`) and the text without reasoning (as it came, also where the verdict is bad).
    """
    text = strip_reasoning(content or "")
    if finish_reason == "content_filter":
        return "filtered", text
    if finish_reason == "length":
        return "cut off", text
    if refusal or is_refusal(text):
        return "refusal", text or (refusal or "")
    if not any(character.isalnum() for character in text):
        return "empty", text
    if count_words(text) > 2 * words + 40:
        return "too long", text
    if not speaks(text, language):
        return "wrong language", text
    return USABLE, text


def is_refusal(text: str) -> bool:
    """Whether the beginning of a text says that the model will not answer."""
    beginning = text.replace("\u2019", "'")[:200]
    return bool(_REFUSAL.search(beginning)) and count_words(text) < 120


def count_words(text: str) -> int:
    """Words of a text; scripts without spaces count two characters as a word."""
    unspaced = sum(1 for character in text if _is_unspaced(character))
    spaced = "".join(" " if _is_unspaced(character) else character for character in text)
    return len(spaced.split()) + (unspaced + 1) // 2


def speaks(text: str, language: str) -> bool:
    """Whether a text is in a language, as far as its script and its function words tell.

    Languages of their own script need it in a third of the letters. Those of the Latin script need it in most letters,
    and no other known language may have clearly more of its function words in the text. A text under 20 words is
    judged by its script alone; of a language that is not known here nothing can be said, and True is returned.
    """
    name = language.strip().title()
    letters = [character for character in text if character.isalpha()]
    if name in _SCRIPTS:
        wanted = sum(1 for character in letters if _script(character) in _SCRIPTS[name])
        kana = name != "Japanese" or any(_script(character) in ("HIRAGANA", "KATAKANA") for character in letters)
        return wanted >= len(letters) / 3 and kana
    if name not in _FUNCTION_WORDS:
        return True
    if sum(1 for character in letters if _script(character) == "LATIN") < 0.6 * len(letters):
        return False
    tokens = re.findall(r"[^\W\d_]+", text.lower())
    if len(tokens) < 20:
        return True
    counts = {
        each: sum(1 for token in tokens if token in vocabulary)
        for each, vocabulary in ((each, set(line.split())) for each, line in _FUNCTION_WORDS.items())
    }
    best_other = max(count for each, count in counts.items() if each != name)
    return counts[name] >= best_other or best_other < 0.06 * len(tokens)


def _script(character: str) -> str:
    return unicodedata.name(character, "").split(" ", 1)[0]


def _is_unspaced(character: str) -> bool:
    return "\u3040" <= character <= "\u30ff" or "\u3400" <= character <= "\u9fff" or "\u0e00" <= character <= "\u0e7f"
