"""The report of a sweep as a page that follows it while it runs.

llmemf live                         the newest sweep, until Ctrl-C
llmemf live NAME --open             a sweep by its name, opened in the browser
llmemf live NAME --port 8800
"""

from __future__ import annotations

import signal
import time
from pathlib import Path
from typing import Annotated

import typer
from rich.text import Text

from llmemf.errors import InputError
from sweeps.cli import options
from sweeps.core.console import CommandConsole


def live(
    sweep: options.SweepArgument = None,
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port of the page; 0 takes a free one.")] = 8765,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 lets other machines read the page, too.")
    ] = "127.0.0.1",
    open_page: options.OpenPage = False,
    storage: options.Written = Path("mlruns"),
) -> None:
    """Serve a sweep's report while it runs.

    Best so far, curves, workers, time left.

    The page renews itself. It only reads, and nobody but this machine can see it.
    """
    from sweeps.reporting.live import make_server
    from sweeps.state.sweep_record import RECORD, find_sweep

    console = CommandConsole()
    if sweep and (storage / "sweeps" / sweep).is_dir():
        # A sweep tells its name before it has loaded its data and reached Ray and MLflow.
        with console.status(f"waiting until {sweep} begins"):
            while not (storage / "sweeps" / sweep / RECORD).exists():
                time.sleep(0.5)
    record = find_sweep(storage, name=sweep)
    with console.status("drawing"):
        server = make_server(record, host, port)
    # However this process is asked to end, it ends at once.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.default_int_handler)
    with server:
        address = f"http://{host}:{server.server_port}/"
        console.print(Text.assemble((f"{record.name}  ", "dim"), (address, "cyan")), soft_wrap=True)
        console.print("Ctrl-C ends it", style="dim")
        if open_page and typer.launch(address):
            raise InputError(f"no browser could be opened here: open {address} yourself")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            console.print("stopped")
