"""An exported model behind HTTP, by MLflow's own server.

llmemf serve mlruns/models/my_sweep-t07          an exported folder, until Ctrl-C
llmemf serve my_sweep --port 5005                the best trial of a sweep, exported first where it is not yet
"""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from llmemf.command_line import command_line
from llmemf.errors import InputError
from sweeps.cli import options
from sweeps.cli.export import SERVE_PORT, curl_line
from sweeps.core.console import CommandConsole

SECONDS_OF_A_CALL = "300"
"""MLflow's server gives up after 60, in which two cores may not answer thousands of users."""


def serve(
    model: Annotated[
        str, typer.Argument(metavar="FOLDER|SWEEP", help="An exported folder, or a sweep: its best model.")
    ],
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines in, and asks nobody who he is.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen at.")] = SERVE_PORT,
    storage: options.Written = Path("mlruns"),
) -> None:
    """Answer histories over HTTP with a model, until Ctrl-C."""
    from llmemf.export.folder import ExportedModel, is_exported
    from sweeps.export.registry import save_for_mlflow
    from sweeps.state.sweep_record import storage_folder
    from sweeps.tracking import pages

    console = CommandConsole()
    pages.check_port(port, host)
    folder = Path(model)
    if not is_exported(folder):
        folder = _of_sweep(model, storage_folder(storage), console)
    environment = {
        # MLflow starts its server by name, in an environment that need not be active.
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT": os.environ.get(
            "MLFLOW_SCORING_SERVER_REQUEST_TIMEOUT", SECONDS_OF_A_CALL
        ),
        # Scoring fills large tensors; with large pages the system is asked for them less often.
        "THP_MEM_ALLOC_ENABLE": "1",
    }
    everywhere = host == "0.0.0.0"
    address = f"http://{'127.0.0.1' if everywhere else host}:{port}"
    pages.end_on_signals()
    with tempfile.TemporaryDirectory(prefix="llmemf-serve-") as temporary:
        log = Path(tempfile.gettempdir()) / f"{Path(temporary).name}.log"
        try:
            with console.status(f"loading {folder}"):
                loaded = ExportedModel.load(folder, device="cpu")
                save_for_mlflow(folder.resolve(), loaded, Path(temporary) / "model")
            words = ["models", "serve", "-m", str(Path(temporary) / "model"), "--env-manager", "local"]
            with pages.server([*words, "--host", host, "--port", str(port)], address, log, environment) as process:
                console.print(f"{folder} answers at {address}/invocations; Ctrl-C ends it", soft_wrap=True)
                console.print(
                    Text("ask  ", style="dim").append(curl_line(loaded, address), style="cyan"), soft_wrap=True
                )
                if everywhere:
                    console.print("every machine that reaches this one can ask it", style="yellow")
                process.wait()
        except KeyboardInterrupt:
            console.print("stopped")
            log.unlink(missing_ok=True)
            return
    raise InputError(f"MLflow's server ended by itself: see {log}")


def _of_sweep(name: str, storage: Path, console: CommandConsole) -> Path:
    """The exported folder of a sweep's best trial; written where it is not there yet."""
    from llmemf.export.folder import is_exported
    from sweeps.export.chosen import choose, write_model

    if not (storage / "sweeps" / name / "sweep.yaml").exists():
        raise InputError(
            f"{name!r} is no exported folder, and no sweep of {storage}: export one with {command_line('export')}, or "
            "name the folder that holds model.json"
        )
    chosen = choose(storage, name, None)
    folder = storage / "models" / chosen.name
    if not is_exported(folder):
        with console.status(f"exporting {chosen.name}"):
            _, check = write_model(chosen, folder)
        console.print(f"exported {folder}: {check}", soft_wrap=True)
    return folder
