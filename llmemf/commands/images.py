"""Get the images of the items: by their addresses, or from a folder.

llmemf features images NAME
llmemf features images NAME --folder my_photos
"""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmemf.commands.data_options import Prepared, say, show, status_table
from llmemf.commands.progress import INTERRUPTED, UNFINISHED, ProgressLine
from llmemf.commands.shared_options import shared_options
from llmemf.features.image_limits import FetchSettings
from llmemf.text_format import plural

if TYPE_CHECKING:
    import pandas as pd

    from llmemf.features.fetch import FetchProgress
    from llmemf.scenarios.scenario import Scenario


@shared_options(settings=FetchSettings, prepared=Prepared)
def images(
    prepared: Prepared,
    settings: FetchSettings,
    folder: Annotated[
        Path | None,
        typer.Option("--folder", help="Take images named by external id from here; fetch nothing.  [default: fetch]"),
    ] = None,
) -> None:
    """Fetch the items' images, or take them from a folder.

    Run again to continue where it stopped.
    """
    from llmemf.features.fetch import ImageFetch
    from llmemf.features.local_images import take_local_images

    scenario = prepared.load()
    if folder is not None:
        with ProgressLine("items") as line:
            table = take_local_images(scenario, folder, settings, line.show)
        image_summary(scenario, table)
        _tell_next(prepared, table)
        return
    with ProgressLine("images") as line:

        def count(progress: FetchProgress) -> None:
            failed = f"{progress.failed:,} failed" if progress.failed else ""
            line.show(progress.done, progress.total, f"{progress.bytes / 1e6:.1f} MB", failed)

        fetch = ImageFetch(
            scenario,
            settings,
            on_progress=count,
            on_interrupt=lambda under_way: line.say(
                f"stopping after {plural(under_way, 'request')} under way; Ctrl-C again drops them"
            ),
        )
        table = asyncio.run(fetch.run())
    image_summary(scenario, table)
    if fetch.stop.reason == "interrupted":
        say("stopped; the same command continues from here")
        raise typer.Exit(INTERRUPTED)
    if fetch.stop.reason:
        say(f"stopped: {fetch.stop.message} The same command continues from here", error=True)
        raise typer.Exit(UNFINISHED)
    _tell_next(prepared, table)


def _tell_next(prepared: Prepared, table: pd.DataFrame) -> None:
    if (table.status == "ok").any():
        say(f"also: {prepared.hint('features', 'offline', prepared.name, '--kind', 'image')}")
        say(f"next: {prepared.hint('features', 'encode', prepared.name, '--kind', 'image')}")


def image_summary(scenario: Scenario, table: pd.DataFrame) -> None:
    """Print what became of the items' images."""
    parts = (table.status[: scenario.num_x], table.status[scenario.num_x :])
    show(status_table(dict(zip(scenario.domains, map(Counter, parts)))))
    say(f"written: {scenario.location / 'images.parquet'}")
    if (table.status == "private address").any():
        say("note: addresses of your own network are fetched with --allow-private --retry-failed")
