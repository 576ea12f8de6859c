"""The `llmemf` command: everything about one scenario and one model.

llmemf data --help        prepare and inspect scenarios
llmemf features --help    make, import and show the items' features
llmemf models             list the systems; `llmemf models NAME` shows the settings of one
llmemf train --help       train one model on one scenario
llmemf evaluate --help    score a checkpoint, or an exported model
llmemf recommend --help   the top items for a history, by an exported model
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import typer

from llmemf.commands import data, features, models, recommend, train
from llmemf.errors import InputError

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="LLM-EMF: cross-domain sequential recommendation, one scenario and one model at a time.",
)
app.add_typer(data.app, name="data")
app.add_typer(features.app, name="features")
app.command("models")(models.models)
app.command("train")(train.train)
app.command("evaluate")(train.evaluate)
app.command("recommend")(recommend.recommend)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake becomes one line on stderr and exit code 2."""
    try:
        app(args=None if arguments is None else list(arguments), prog_name="llmemf")
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
