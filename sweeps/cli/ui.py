"""MLflow's pages on the runs of a storage folder.

python sweeps/ui.py                              serves mlruns/mlflow.db until Ctrl-C, and tells the addresses
python sweeps/ui.py --port 5005 --open           at another port, and in the browser
python sweeps/ui.py --storage /mnt/shared/mlruns
"""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from llmemf.errors import InputError
from sweeps.cli import options
from sweeps.core.console import CommandConsole


def ui(
    port: Annotated[
        int, typer.Option(min=1, max=65535, help="Port on this machine; other machines cannot reach it.")
    ] = 5000,
    open_browser: options.OpenPage = False,
    storage: options.Written = Path("mlruns"),
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="Another database, sqlite:///FILE.db, or a server.  [default: the newest sweep's]"),
    ] = None,
) -> None:
    """Browse the sweeps of a storage folder in MLflow's own pages."""
    from sweeps.state.sweep_record import storage_folder
    from sweeps.tracking import pages
    from sweeps.tracking.mlflow_runs import mlflow_client

    console = CommandConsole()
    storage = storage_folder(storage)
    uri = pages.find_tracking(storage, tracking_uri)
    if uri.startswith("http"):
        console.print("the runs are on a server:")
        _print_links(console, uri, uri.rstrip("/"), storage, open_browser)
        return
    pages.check_port(port)
    address = f"http://127.0.0.1:{port}"
    words = ["--backend-store-uri", uri, "--artifacts-destination", (storage / "artifacts").as_uri()]
    words += ["--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    # Its workers for language model evaluation: there is nothing here for them to do.
    environment = {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    pages.end_on_signals()
    try:
        console.print(f"starting MLflow's server on {uri}", soft_wrap=True)
        # The server's processes open the database all at once; what they cannot open they tell themselves.
        with suppress(Exception):
            mlflow_client(uri)
        with pages.server(["server", *words], address, storage / "ui.log", environment) as process:
            _print_links(console, uri, address, storage, open_browser)
            console.print("Ctrl-C ends it", style="dim")
            process.wait()
    except KeyboardInterrupt:
        console.print("stopped")
        return
    raise InputError(f"MLflow's server ended by itself: see {storage / 'ui.log'}")


def _print_links(console: Console, uri: str, address: str, storage: Path, open_browser: bool) -> None:
    from sweeps.tracking import pages

    links = pages.links(uri, storage, address) or {"open": f"{address}/#/experiments?workflowType=machine_learning"}
    width = max(map(len, links))
    for name, page in links.items():
        console.print(Text(f"{name:<{width}}  ", style="dim").append(page, style="cyan"), soft_wrap=True)
    if open_browser and not webbrowser.open(next(iter(links.values()))):
        console.print("no browser could be opened here", style="yellow")
