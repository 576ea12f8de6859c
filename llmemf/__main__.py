"""`python -m llmemf`: the commands of the trial floor, which need neither Ray, Optuna nor MLflow.

The console command `llmemf` (`sweeps.cli.main`) has these and those of the sweeps.
"""

from __future__ import annotations

from collections.abc import Sequence

from llmemf.commands import add_commands
from llmemf.commands.boundary import App, run_app

app = App(no_args_is_help=True, add_completion=False)
add_commands(app)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line; a user's mistake becomes one line on stderr and exit code 2."""
    run_app(app, "python -m llmemf", arguments)


if __name__ == "__main__":
    main()
