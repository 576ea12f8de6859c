"""Make, import and show the item features of a scenario.

llmemf features offline NAME
llmemf features import NAME --text text_feat.npy --image image_feat.npy --encoder clip-b32
llmemf features encode NAME --text title+llm
llmemf features profiles NAME
llmemf features pack NAME
llmemf features show NAME
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from llmemf.commands import encode, enrich, images
from llmemf.commands.boundary import App
from llmemf.commands.data_options import EncodedKind, Overwrite, Prepared, kinds_of, say, show
from llmemf.commands.shared_options import shared_options
from llmemf.errors import InputError

Precision = Literal["fp16", "fp32"]

app = App(no_args_is_help=True, help="Make, import and show the item features of a scenario.")


@app.command("offline")
@shared_options(prepared=Prepared)
def offline(
    prepared: Prepared,
    kind: EncodedKind = "both",
    width: Annotated[int, typer.Option("--width", min=1, help="Numbers per item.")] = 512,
    overwrite: Overwrite = False,
) -> None:
    """Encode texts and images without weights and without a GPU.

    Texts by TF-IDF + SVD, images by pixels + PCA.
    """
    from llmemf.commands.feature_view import address_note, feature_table, notes
    from llmemf.features.matrix import check_absent
    from llmemf.features.offline import ENCODER, items_with_address_only, write_offline

    scenario = prepared.load()
    kinds = kinds_of(kind)
    if not overwrite:
        check_absent(scenario, [f"{each}.{ENCODER}" for each in kinds])
    written, absent = [], []
    for each in kinds:
        start = time.perf_counter()
        matrix = write_offline(scenario, each, width, overwrite=overwrite)
        if matrix is None:
            absent.append(each)
            if each == "image" and (addresses := items_with_address_only(scenario)):
                say(f"note: {address_note(scenario, addresses)}")
            continue
        written.append(matrix)
        say(f"{each}: {int(matrix.has.sum())} of {scenario.num_items} items in {time.perf_counter() - start:.1f} s")
        for note in notes(scenario, matrix):
            say(f"note: {note}")
    left = ",".join(["id", *(each for each in ("image", "text") if each not in absent)])
    nothing = f"no item of scenario {scenario.name!r} has {' or '.join(_CONTENT[each] for each in absent)}"
    if not written:
        raise InputError(f"{nothing}: nothing was written; train without it: --set modalities={left}")
    show(feature_table(scenario, written))
    if absent:
        one = prepared.hint("train", scenario.name, "--set", f"modalities={left}")
        say(f"note: {nothing}: a sweep leaves that out by itself; a single model: {one}")
    say(f"next: {prepared.hint('sweep', '--scenario', scenario.name)}")


@app.command("import")
@shared_options(prepared=Prepared)
def import_(
    prepared: Prepared,
    text: Annotated[
        Path | None, typer.Option("--text", help="Matrix of text features (.npy), rows by item.  [default: none]")
    ] = None,
    image: Annotated[
        Path | None, typer.Option("--image", help="Matrix of image features (.npy), rows by item.  [default: none]")
    ] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Name of what made them.")] = "imported",
    overwrite: Overwrite = False,
) -> None:
    """Import ready matrices, one row per item.

    All items of the first domain, then those of the second. A row of zeros stands for an item without the feature.
    """
    from llmemf.commands.feature_view import feature_table
    from llmemf.features.imported import import_matrix
    from llmemf.features.matrix import save_all

    if text is None and image is None:
        raise InputError("nothing to import: give --text text_feat.npy, --image image_feat.npy, or both")
    scenario = prepared.load()
    given = {"text": text, "image": image}
    matrices = [import_matrix(scenario, kind, path, encoder=encoder) for kind, path in given.items() if path]
    save_all(matrices, scenario, overwrite=overwrite)
    show(feature_table(scenario, matrices))
    say(f"next: {prepared.hint('sweep', '--scenario', scenario.name)}")


@app.command("profiles")
@shared_options(prepared=Prepared)
def profiles(
    prepared: Prepared,
    matrix: Annotated[
        Path | None,
        typer.Option(
            "--matrix",
            help="Rows by another text encoder (.npy), one per line of llm_profiles.parquet.  [default: encoded here]",
        ),
    ] = None,
    encoder: Annotated[str, typer.Option("--encoder", help="Name of what made --matrix.")] = "imported",
    width: Annotated[int, typer.Option("--width", min=1, help="Numbers per user, without --matrix.")] = 512,
    overwrite: Overwrite = False,
) -> None:
    """Encode the user profiles of `enrich --profiles`.

    By TF-IDF + SVD, or import the rows of any text encoder.
    """
    from llmemf.features.profiles import encode_profiles, import_profiles

    scenario = prepared.load()
    found = import_profiles(scenario, matrix, encoder) if matrix else encode_profiles(scenario, width)
    found.save(scenario, overwrite=overwrite)
    say(f"{found.name}: {int(found.has.sum()):,} of {len(found.has):,} users have a row of {found.width} numbers")
    say(f"next: {prepared.hint('train', scenario.name, '--set', 'model=lecdsr', '--set', 'profile=llm')}")


@app.command("pack")
@shared_options(prepared=Prepared)
def pack(
    prepared: Prepared,
    kind: EncodedKind = "both",
    encoder: Annotated[str, typer.Option("--encoder", help="Which features; auto as in training.")] = "auto",
    precision: Annotated[Precision, typer.Option("--precision", help="fp16 (half the size), or fp32.")] = "fp16",
    overwrite: Overwrite = False,
) -> None:
    """Write features once more in half precision.

    Trials map them from the disk, and nobody copies them.
    """
    from llmemf.features.finding import find_features
    from llmemf.features.matrix import PACKED
    from llmemf.features.packed import pack as pack_matrix

    scenario = prepared.load()
    settings = []
    for each in kinds_of(kind):
        packed = pack_matrix(find_features(scenario, each, encoder), scenario, precision, overwrite=overwrite)
        change = packed.details[PACKED]["largest_change"]
        say(
            f"{packed.name}: {packed.rows.nbytes / 2**20:,.0f} MiB; no row moved by more than {change:.1e} of its length"
        )
        settings += ["--set", f"{each}_encoder={packed.encoder}"]
    say(f"next: {prepared.hint('train', scenario.name, *settings)}")


_CONTENT = {"text": "a title or description", "image": "a stored image"}


app.command("encode")(encode.encode)
app.command("show")(encode.show)
app.command("images")(images.images)
app.command("enrich")(enrich.enrich)
