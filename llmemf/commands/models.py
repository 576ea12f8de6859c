"""The systems, and the settings of each.

llmemf models
llmemf models sasrec
"""

from __future__ import annotations

from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from llmemf.command_line import command_line


def models(
    name: Annotated[
        str | None, typer.Argument(metavar="NAME", help="Show the settings of this system.", show_default=False)
    ] = None,
) -> None:
    """List the systems, or the settings of one.

    The list names what each needs, its source and its status.
    """
    if name is None:
        _list()
    else:
        _show(name)


def _list() -> None:
    from llmemf.models import MODELS, model_class

    table = Table("system", "needs", "status", "source", box=None, header_style="bold", padding=(0, 1))
    table.columns[0].no_wrap = True
    for name in MODELS:
        kind = model_class(name)
        needs = ", ".join(sorted(kind.needs(kind.config_class(model=name)))) or "-"
        status = f"{kind.status}, no training" if kind.closed_form else kind.status
        table.add_row(*map(escape, (name, needs, status, kind.source)))
    console = Console(highlight=False, markup=False)
    console.print(table)
    console.print()
    features = command_line("features", "--help")
    typer.echo(f"needs: features beside the sequences, with default settings (`{features}` tells how to make them)")
    train = command_line("train", "SCENARIO", "--model", "NAME")
    typer.echo(f"settings of one: {command_line('models', 'NAME')}    train it: {train}")


def _show(name: str) -> None:
    from llmemf.models import model_class
    from llmemf.models.overview import settings, space_lines

    kind = model_class(name)
    typer.echo(f"{name}: {kind.source}")
    typer.echo(f"status: {kind.status}{', complete without training' if kind.closed_form else ''}")
    notes = (kind.config_class.__doc__ or "").strip().split("\n\n")
    for note in notes:
        typer.echo(" ".join(note.split()))
    rows = settings(kind.config_class, name)
    for title, shared in (("its own settings", False), ("settings of every system", True)):
        some = [row for row in rows if row.shared is shared]
        if some:
            table = Table("setting", "default", "takes", "", box=None, header_style="bold", padding=(0, 1))
            table.title, table.title_justify, table.title_style = title, "left", "bold"
            table.columns[0].no_wrap = True
            table.columns[3].ratio = 1
            for row in some:
                table.add_row(*map(escape, (row.name, row.default, row.valid, row.text)))
            typer.echo()
            Console(highlight=False, markup=False).print(table)
    typer.echo("\nsearch space of a sweep, where the scenario's YAML names none:")
    for line in space_lines(kind.search_space):
        typer.echo(f"  {line}")
