"""Recommend the top items for a history, by an exported model.

llmemf recommend --model FOLDER --history "B00003CY51,0767811070" --domain book --k 10
llmemf recommend --model FOLDER --history @history.txt --domain book --json
cut -f2 orders.tsv | llmemf recommend --model FOLDER --history - --domain movie
"""

from __future__ import annotations

import json
import re
import sys
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmemf.errors import InputError
from llmemf.text_format import plural


def recommend(
    model: Annotated[Path, typer.Option("--model", metavar="FOLDER", help="An exported model.")],
    history: Annotated[
        str,
        typer.Option(
            "--history", help="Item ids, oldest first: id1,id2,... or a JSON list; @FILE, or - for standard input."
        ),
    ],
    domain: Annotated[str, typer.Option("--domain", help="Whose items are wanted.")],
    k: Annotated[int, typer.Option("--k", help="How many.")] = 10,
    keep_history: Annotated[
        bool, typer.Option("--keep-history", help="Items of the history may be recommended again.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The answer as one JSON object.")] = False,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or cuda:N.")] = "auto",
) -> None:
    """Recommend items of one domain to a person with this history."""
    names = read_history(history)
    from llmemf.export.recommendation import Recommendations

    request = {"history": names, "domain": domain, "k": k, "exclude_history": not keep_history}
    answer = Recommendations.load(model, device=device).answer(request)
    if as_json:
        print(json.dumps(answer, ensure_ascii=False))
    else:
        _print(answer, Console(highlight=False, markup=False))


def read_history(text: str) -> list[str]:
    """Item ids out of the option: a JSON list, or separated by commas or line ends, blanks around them dropped.

    Raises:
        InputError: a file cannot be read.
    """
    if text == "-":
        text = sys.stdin.read()
    elif text.startswith("@"):
        try:
            text = Path(text[1:]).expanduser().read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            reason = getattr(error, "strerror", None) or "not UTF-8 text"
            raise InputError(f"--history {text}: the file cannot be read: {reason}") from None
    if text.lstrip().startswith("["):
        with suppress(json.JSONDecodeError):
            return json.loads(text)
    return [part.strip() for part in re.split(r"[,\n]", text) if part.strip()]


def _print(answer: dict[str, Any], console: Console) -> None:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
    table.add_column("", justify="right")
    table.add_column("id", no_wrap=True)
    table.add_column("title", overflow="fold")
    table.add_column("score", justify="right", no_wrap=True)
    for item in answer["items"]:
        table.add_row(str(item["rank"]), Text(item["id"]), Text(item["title"] or "-"), f"{item['score']:.4f}")
    console.print(table)
    known, unknown = answer["known_items"], answer["unknown_items"]
    source = (
        "the most popular items: the model can say nothing from this history"
        if "fallback" in answer
        else f"from {plural(known, 'known item')} of the history"
    )
    skipped = f", {len(unknown)} unknown and skipped: {', '.join(unknown)}" if unknown else ""
    console.print(Text(f"{source}{skipped}"), style="dim")
