"""The best model of a sweep as a folder that answers histories, registered in MLflow.

python sweeps/export.py                                  the best trial of the newest sweep
python sweeps/export.py my_sweep --trial t07             another one that kept its weights
python sweeps/export.py my_sweep --out FOLDER --no-register
"""

from __future__ import annotations

import shlex
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError
from sweeps.cli import options
from sweeps.core.console import CommandConsole, facts_table

if TYPE_CHECKING:
    from llmemf.export.folder import ExportedModel

SERVE_PORT = 5001
"""The UI is at 5000."""


def export(
    sweep: options.SweepArgument = None,
    trial: Annotated[
        str | None, typer.Option(metavar="tNN", help="A trial that kept its weights.  [default: the best]")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder to write.  [default: STORAGE/models/SWEEP-TRIAL]")] = None,
    no_register: Annotated[bool, typer.Option("--no-register", help="Only write the folder.")] = False,
    register_as: Annotated[
        str | None, typer.Option(metavar="NAME", help="Name of the registered model.  [default: llmemf-SCENARIO]")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace a model that was exported before.")] = False,
    storage: options.Written = Path("mlruns"),
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of the prepared scenarios.  [default: the sweep's]")
    ] = None,
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow.  [default: the sweep's]")] = None,
) -> None:
    """Write the best model of a sweep to a folder.

    It needs nothing else, and is registered in MLflow.
    """
    from sweeps.export.chosen import choose, write_model
    from sweeps.tracking.addresses import absolute_uri

    if register_as is not None and (not register_as.strip() or set(register_as) & set("/:")):
        raise InputError(f"--register-as {register_as!r}: MLflow takes any name without / and :")
    console = CommandConsole()
    storage = storage.resolve()
    chosen = choose(storage, sweep, trial)
    target = (out or storage / "models" / chosen.name).resolve()
    uri = absolute_uri(tracking_uri, storage) if tracking_uri else None
    with console.status(f"exporting {chosen.name}"):
        model, check = write_model(chosen, target, data_root=data_root, overwrite=overwrite)
    facts = facts_table()
    value = "" if chosen.trial.objective is None else f", objective {chosen.trial.objective:.4f}"
    epoch = f"epoch {chosen.trial.best_epoch} of {chosen.trial.epoch}"
    facts.add_row("model", f"{chosen.trial.name} of {chosen.sweep.name}: {model.config.model}, {epoch}{value}")
    facts.add_row("checked", check)
    size = sum(path.stat().st_size for path in target.iterdir())
    facts.add_row("folder", f"{target} ({text_format.size(size)})")
    name = version = ""
    if not no_register:
        from sweeps.export.registry import register

        with console.status("registering in MLflow"):
            name, version = register(target, chosen, name=register_as, tracking_uri=uri)
        facts.add_row("registered", f"{name}, version {version}")
    console.print(facts)
    console.print()
    _print_commands(
        console, model, target, f"models:/{name}/{version}" if name else "", uri or chosen.sweep.tracking_uri
    )


def _print_commands(console: Console, model: ExportedModel, folder: Path, served: str, uri: str) -> None:
    """What to do with it, as it can be typed here."""
    from sweeps.export.registry import example

    request = example(model)
    binaries = Path(sys.executable).parent
    words = ("--model", folder, "--history", ",".join(request["history"]), "--domain", request["domain"])
    lines = {"recommend": command_line("recommend", *words), "serve": command_line("serve", folder)}
    if served:
        # MLflow starts its server by name: where the environment is not active, its folder has to be named.
        path = "" if shutil.which("uvicorn") else f'PATH={shlex.quote(str(binaries))}:"$PATH" '
        lines["or"] = (
            f"{path}MLFLOW_TRACKING_URI={shlex.quote(uri)} mlflow models serve -m {served} --env-manager local "
            f"--port {SERVE_PORT}"
        )
    lines["ask"] = curl_line(model, f"http://127.0.0.1:{SERVE_PORT}")
    for name, line in lines.items():
        console.print(Text(f"{name:<10}", style="dim").append(line, style="cyan"), soft_wrap=True)


def curl_line(model: ExportedModel, address: str) -> str:
    """A command that asks a server of the model for an answer."""
    import json

    from sweeps.export.registry import example

    body = shlex.quote(json.dumps({"inputs": [example(model)]}))
    return f"curl -s {address}/invocations -H 'Content-Type: application/json' -d {body}"
