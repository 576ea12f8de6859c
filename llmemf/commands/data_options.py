"""What the commands of `llmemf data` and `llmemf features` share: arguments, output, and scenarios old and new."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from rich.console import Console
from rich.table import Table

from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.scenarios.names import check_free

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

DEFAULT_ROOT = Path("data")
DataRoot = Annotated[
    Path,
    typer.Option("--data-root", envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios."),
]
Existing = Annotated[str, typer.Argument(metavar="NAME", help="A prepared scenario, see `llmemf data list`.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace features of the same kind and encoder.")]
EncodedKind = Annotated[Literal["text", "image", "both"], typer.Option("--kind", help="What to encode.")]
Name = Annotated[str, typer.Option("--name", help="Name of the new scenario: a folder below the data root.")]


def pair(text: str, option: str) -> tuple[str, str]:
    """Two names from `a,b`.

    Raises:
        InputError: they are not two.
    """
    first, *others = (part.strip() for part in text.split(","))
    if len(others) != 1 or not first or not others[0]:
        raise InputError(f"{option} {text!r}: expected two names with a comma between them, for example movie,book")
    return first, others[0]


def hint(data_root: Path, *words: str) -> str:
    """A command to type next, with the data root where it is not the usual one."""
    return command_line(*words, *([] if data_root == DEFAULT_ROOT else ["--data-root", str(data_root)]))


def say(text: str, error: bool = False) -> None:
    """Print a line as it is: neither wrapped nor coloured, so that paths and commands can be copied."""
    typer.echo(text, err=error)


def kinds_of(kind: str) -> tuple[str, ...]:
    """The kinds of features that `--kind` names."""
    return ("text", "image") if kind == "both" else (kind,)


def show(*what: Any) -> None:
    """Print tables, or texts that contain no markup."""
    Console(markup=False).print(*what)


def number_table(*columns: str) -> Table:
    """A table without lines: a first column of names, and columns of numbers."""
    table = Table("", *columns, box=None, header_style="bold")
    for column in table.columns[1:]:
        column.justify = "right"
    return table


def status_table(counts: Mapping[str, Mapping[str, int]]) -> Table:
    """How many items have which status: statuses as rows ("ok" first, then the most frequent), domains as columns."""
    totals = sum(map(Counter, counts.values()), Counter())
    table = number_table(*counts)
    for status in sorted(totals, key=lambda status: (status != "ok", -totals[status], status)):
        table.add_row(status, *(f"{counts[domain].get(status, 0):,}" for domain in counts))
    return table


@dataclass(frozen=True)
class Prepared:
    """A prepared scenario, as the argument of a command."""

    name: Existing
    data_root: DataRoot = DEFAULT_ROOT

    def load(self) -> Scenario:
        """Read it.

        Raises:
            InputError: there is none of that name, or it is damaged.
        """
        from llmemf.scenarios.scenario import find_scenario

        return find_scenario(self.name, self.data_root)

    def hint(self, *words: str) -> str:
        """A command to type next."""
        return hint(self.data_root, *words)


@dataclass(frozen=True)
class Target:
    """The place of a new scenario."""

    data_root: DataRoot = DEFAULT_ROOT
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a scenario of that name, and its features with it.")
    ] = False
    started: float = field(default_factory=time.perf_counter, init=False)

    def check(self, name: str) -> None:
        """Refuse a name that is taken, before hours of reading.

        Raises:
            InputError: it is.
        """
        if not self.overwrite:
            check_free(name, self.data_root)

    def save(self, scenario: Scenario, image_folder: Path, *others: tuple[str, ...]) -> None:
        """Write a scenario with the images that its items name, show what it is, and name the command that comes next.

        Args:
            others: the words of commands that may come before it.
        """
        from llmemf.commands.scenario_view import summary
        from llmemf.scenarios.audit import absent_domains
        from llmemf.scenarios.images import is_address, save_with_images

        scenario = save_with_images(scenario, self.data_root, image_folder, overwrite=self.overwrite)
        say(f"{scenario.name} written to {scenario.folder} in {time.perf_counter() - self.started:.1f} s")
        show(summary(scenario))
        for note in absent_domains(scenario):
            say(f"note: {note}")
        name, items = scenario.name, scenario.items
        has_text = bool((items[["title", "description"]] != "").any(axis=None))
        has_images = any(image and not is_address(image) for image in items["image"])
        for words in (("data", "audit", name), *others):
            say(f"also: {hint(self.data_root, *words)}")
        if has_text or has_images:
            say(f"next: {hint(self.data_root, 'features', 'offline', name)}")
        else:
            say("note: the items have neither text nor stored images: a sweep uses their ids alone")
            say(f"next: {hint(self.data_root, 'sweep', '--scenario', name)}")
