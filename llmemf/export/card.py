"""The model card: what an exported model is, its training data, its numbers, and its limits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

from llmemf.config import TrialConfig
from llmemf.ranking_names import METRICS, PREFIXES, RANKINGS

STATUS_NOTES = {
    "pseudo-profile": "User profiles are means of item texts, not written by a language model as in the source.",
    "substitute graph": "The knowledge graph of the source is replaced by one of co-occurrences.",
}


LIMITS = (
    "For experiments with cross-domain recommendation, and for suggestions to people whose taste the data resembles. Not for decisions about people.",
    "It was trained on what was taken, not on what was liked, and repeats what the data preferred; items that came later than the data are unknown to it.",
)
USE = (
    "Ids that the model does not know are skipped and named in the answer; where it knows none, the answer is the domain's "
    "most popular items and says so (`fallback`). Items of the history are left out of the answer unless `exclude_history` is "
    "false. The model knows nothing of the person but this history. Scores can be compared within one answer only."
)


def model_card(
    manifest: Mapping[str, Any],
    config: TrialConfig,
    metrics: Mapping[str, Mapping[str, float]],
    *,
    source_of_system: str,
    examples: Sequence[str],
    name: str,
) -> str:
    """The card in Markdown.

    Args:
        manifest: the content of `model.json`.
        metrics: logged numbers by split.
        source_of_system: the paper or page that the system was written from.
        examples: a few item ids for the commands that are shown.
        name: of the folder.
    """
    x, y = manifest["domains"]
    history = ",".join(examples)
    sections = {
        "Use": [
            "```bash",
            f'llmemf recommend --model {name} --history "{history}" --domain {y} --k 10',
            f"llmemf evaluate {name} {manifest['scenario']} --split valid     # needs the scenario; gives the numbers below",
            "```",
            "",
            "```python",
            "from llmemf.export.recommendation import Recommendations",
            f'Recommendations.load("{name}").answer({{"history": {list(examples)!r}, "domain": "{y}", "k": 10}})',
            "```",
            "",
            USE,
        ],
        "Data": _data(manifest),
        "Numbers": _numbers(manifest, metrics),
        "Intended use and limits": [f"- {line}" for line in _limits(manifest, config, metrics)],
        "Where it comes from": [f"- {key}: {value}" for key, value in (manifest["source"] | manifest["facts"]).items()],
    }
    text = (
        f"# {name}\n\nA next-item recommender over two domains, **{x}** and **{y}**: from the items that a person took, in order, "
        f"it scores every item of either domain. System `{manifest['system']}` ({manifest['status']}), written from: "
        f"{source_of_system or 'this project'}.\n"
    )
    for title, lines in sections.items():
        text += "\n".join(["", f"## {title}", "", *lines, ""])
    return text + "\nSettings: `config.yaml`. No file of this folder is a pickle.\n"


def _data(manifest: Mapping[str, Any]) -> list[str]:
    x, y = manifest["domains"]
    counts = manifest["sequences"]
    lines = [
        f"- scenario `{manifest['scenario']}`, fingerprint `{manifest['fingerprint']}`",
        (
            f"- {manifest['num_x']:,} items of {x}, {manifest['num_items'] - manifest['num_x']:,} of {y}; "
            f"{manifest['num_users']:,} users; {counts['train']:,} training sequences, {counts['valid']:,} validation and "
            f"{counts['test']:,} test cases"
        ),
    ]
    lines += [
        f"- {kind} features by `{fact['encoder']}`, hash `{fact['hash']}`"
        for kind, fact in manifest["features"].items()
    ]
    return lines if manifest["features"] else [*lines, "- no features: item ids alone"]


def _numbers(manifest: Mapping[str, Any], metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    rows = []
    for (split, values), domain, (suffix, among) in product(metrics.items(), manifest["domains"], RANKINGS.values()):
        found = [values.get(f"{PREFIXES[split]}{suffix}/{domain}/{name}") for name in METRICS]
        if any(value is not None for value in found):
            rows.append([split, domain, among, *("-" if value is None else f"{value:.4f}" for value in found)])
    if not rows:
        return ["None were logged."]
    names = ["split", "domain", "ranked among", *(name.upper().replace("_", "@") for name in METRICS)]
    head, *lines = [f"| {' | '.join(row)} |" for row in [names, *rows]]
    return [head, "|" + "---|" * len(names), *lines]


def _limits(manifest: Mapping[str, Any], config: TrialConfig, metrics: Mapping[str, Mapping[str, float]]) -> list[str]:
    lines = [
        *LIMITS,
        f"It reads the last {config.max_length} items of a history.",
        *manifest["notes"],
    ]
    if manifest["status"] in STATUS_NOTES:
        lines.append(STATUS_NOTES[manifest["status"]])
    if "test" not in metrics:
        lines.append("It was not scored on the test split.")
    lines.append("The folder holds how often each item occurs in the training sequences.")
    if manifest["training_sequences"]:
        lines.append(
            "The folder holds the training sequences (items by number, users by number, times), since the system is built on "
            "them: share it as you would share the data."
        )
    return lines
