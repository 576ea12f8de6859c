"""What counts as a usable answer, and what is reasoning in it."""

from __future__ import annotations

import pytest

from llmemf.features.answers import judge, strip_reasoning


@pytest.mark.parametrize(
    "text",
    [
        "A",
        "<think>hm</think>A",
        "<thinking>hm</thinking>\nA",
        '<think type="r">hm</think >\nA',
        "<THINK>\nhm\n</Think>\n\nA",
        "<seed:think>hm</seed:think>A",
        "<reasoning>hm <thought>deep</thought> hm</reasoning>A",
        "hm</think>A",
        "A<think>hm",
        "[THINK]hm[/THINK]A",
        "\u25c1think\u25b7hm\u25c1/think\u25b7A",
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>final<|message|>A",
        "<|channel|>final <|constrain|>text<|message|>A<|return|>",
    ],
)
def test_reasoning_goes_and_the_answer_stays(text):
    assert strip_reasoning(text) == "A"


@pytest.mark.parametrize("text", ["<think>hm", "<think>hm</think>", "<|channel|>analysis<|message|>hm<|end|>"])
def test_reasoning_alone_is_an_empty_answer(text):
    assert judge(text, "stop", language="English", words=50) == ("empty", "")


def test_words_about_thinking_are_no_tags():
    text = "<thinker> A film that makes you think [of the sea] </thinker>"
    assert strip_reasoning(text) == text
