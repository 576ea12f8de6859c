"""Make, import and show the item features of a scenario.

llmemf features offline NAME
llmemf features import NAME --text text_feat.npy --image image_feat.npy --encoder clip-b32
llmemf features show NAME
"""

from __future__ import annotations

import shlex
import time
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console

from llmemf.errors import InputError

app = typer.Typer(no_args_is_help=True, help="Make, import and show the item features of a scenario.")

DEFAULT_ROOT = Path("data")


class Kind(StrEnum):
    text = "text"
    image = "image"
    both = "both"


Name = Annotated[str, typer.Argument(metavar="NAME", help="A prepared scenario, see `llmemf data list`.")]
DataRoot = Annotated[
    Path, typer.Option("--data-root", envvar="LLMEMF_DATA_ROOT", help="Folder that holds the prepared scenarios.")
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace features of the same kind and encoder.")]


@app.command("offline")
def offline(
    name: Name,
    kind: Annotated[Kind, typer.Option("--kind", help="What to encode.")] = Kind.both,
    width: Annotated[int, typer.Option("--width", min=1, help="Numbers per item.")] = 512,
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Encode texts by TF-IDF + SVD and images by pixels + PCA: no weights to download, no GPU."""
    from llmemf.features.matrix import KINDS, check_absent
    from llmemf.features.offline import ENCODER, write_offline
    from llmemf.scenarios.scenario import find_scenario

    scenario = find_scenario(name, data_root)
    kinds = KINDS if kind is Kind.both else (kind.value,)
    if not overwrite:
        check_absent(scenario, [f"{each}.{ENCODER}" for each in kinds])
    written, absent = [], []
    for each in kinds:
        start = time.perf_counter()
        matrix = write_offline(scenario, each, width, overwrite=overwrite)
        if matrix is None:
            absent.append(each)
            continue
        written.append(matrix)
        _say(f"{each}: {int(matrix.has.sum())} of {scenario.num_items} items in {time.perf_counter() - start:.1f} s")
        for note in _notes(matrix):
            _say(f"note: {note}")
    left = ",".join(["id", *(each for each in ("image", "text") if each not in absent)])
    nothing = f"no item of scenario {name!r} has {' or '.join(_CONTENT[each] for each in absent)}"
    if not written:
        raise InputError(f"{nothing}: nothing was written; train without it: --set modalities={left}")
    Console().print(_table(scenario, written))
    if absent:
        _say(f"note: {nothing}; train without it: --set modalities={left}")


@app.command("import")
def import_(
    name: Name,
    text: Annotated[Path | None, typer.Option("--text", help="Matrix of text features (.npy), rows by item.")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Matrix of image features (.npy), rows by item.")
    ] = None,
    text_mask: Annotated[
        Path | None, typer.Option("--text-mask", help="Which items have a text row (.npy of bool).")
    ] = None,
    image_mask: Annotated[
        Path | None, typer.Option("--image-mask", help="Which items have an image row (.npy of bool).")
    ] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Name of what made them.")] = "imported",
    data_root: DataRoot = DEFAULT_ROOT,
    overwrite: Overwrite = False,
) -> None:
    """Import ready matrices: one row per item, all items of the first domain, then those of the second."""
    from llmemf.features.imported import import_matrix
    from llmemf.features.matrix import save_all
    from llmemf.scenarios.scenario import find_scenario

    given = [("text", text, text_mask), ("image", image, image_mask)]
    for kind, path, mask in given:
        if mask is not None and path is None:
            raise InputError(f"--{kind}-mask {mask} without --{kind}: give the matrix that it belongs to")
    if text is None and image is None:
        raise InputError("nothing to import: give --text text_feat.npy, --image image_feat.npy, or both")
    scenario = find_scenario(name, data_root)
    matrices = [
        import_matrix(scenario, kind, path, mask, encoder=encoder) for kind, path, mask in given if path is not None
    ]
    save_all(matrices, scenario, overwrite=overwrite)
    Console().print(_table(scenario, matrices))


@app.command("show")
def show(name: Name, data_root: DataRoot = DEFAULT_ROOT) -> None:
    """Show the features of a scenario; every matrix is read and checked against its hash."""
    from llmemf.features.matrix import FeatureMatrix, feature_folders
    from llmemf.scenarios.scenario import find_scenario

    scenario = find_scenario(name, data_root)
    folders = feature_folders(scenario)
    if not folders:
        root = "" if data_root == DEFAULT_ROOT else f" --data-root {shlex.quote(str(data_root))}"
        _say(f"scenario {name!r} has no features yet; make them: llmemf features offline {name}{root}")
        return
    matrices = [FeatureMatrix.load(folder, verify=True) for folder in folders]
    for matrix in matrices:
        matrix.check(scenario)
    Console().print(_table(scenario, matrices))
    for matrix in matrices:
        for note in _notes(matrix):
            _say(f"note: {matrix.name}: {note}")


_CONTENT = {"text": "a title or description", "image": "an image"}


def _notes(matrix) -> list[str]:
    """What a user should know about a matrix beyond the table."""
    notes = []
    details = matrix.details
    if unreadable := details.get("items_with_unreadable_image"):
        notes.append(
            f"{unreadable} image(s) cannot be read and count as missing; first: {details['unreadable_images'][0]}"
        )
    if unknown := details.get("items_with_text_but_no_word_of_the_vocabulary"):
        notes.append(f"{unknown} item(s) have a text without any word that another item has; they count as missing")
    if details.get("effective_rank", matrix.width) < matrix.width:
        notes.append(f"only {details['effective_rank']} of {matrix.width} columns carry something, the others are zero")
    return notes


def _table(scenario, matrices):
    from rich.table import Table

    table = Table("kind", "encoder", "width", *scenario.domains, "hash", box=None, header_style="bold")
    for matrix in matrices:
        parts = (matrix.has[: scenario.num_x], matrix.has[scenario.num_x :])
        coverage = [f"{int(part.sum())} of {len(part)} ({part.mean():.0%})" for part in parts]
        table.add_row(matrix.kind, matrix.encoder, str(matrix.width), *coverage, matrix.hash()[:12])
    return table


def _say(text: str) -> None:
    """Print without rich's wrapping and markup, so that names and paths come out whole."""
    typer.echo(text)
