"""Encode item texts and images with CLIP, and look at the result.

llmemf features encode NAME
llmemf features encode NAME --kind text --text title --text llm --text title+llm
llmemf features encode NAME --pretrained FILE --ray-address auto
llmemf features show NAME
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmemf.commands.data_options import EncodedKind, Overwrite, Prepared, hint, kinds_of, say
from llmemf.commands.progress import INTERRUPTED, ProgressLine
from llmemf.commands.shared_options import shared_options
from llmemf.errors import InputError

if TYPE_CHECKING:
    from llmemf.features.clip import Clip
    from llmemf.features.cluster import Pool
    from llmemf.features.encode_job import Job
    from llmemf.features.matrix import FeatureMatrix
    from llmemf.scenarios.scenario import Scenario


@shared_options(prepared=Prepared)
def encode(
    prepared: Prepared,
    kind: EncodedKind = "both",
    model: Annotated[
        str, typer.Option("--model", help="Model of open_clip, or local-dir:FOLDER, or hf-hub:OWNER/NAME.")
    ] = "ViT-B-32",
    pretrained: Annotated[
        str | None, typer.Option("--pretrained", help="Tag of open_clip, or a checkpoint file.  [default: openai]")
    ] = None,
    text: Annotated[
        list[str] | None,
        typer.Option(
            "--text", help="title, llm or title+llm; give it several times for several matrices.  [default: title+llm]"
        ),
    ] = None,
    device: Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, ...")] = "auto",
    precision: Annotated[
        str, typer.Option("--precision", help="auto (fp32 on CPU, fp16 on GPU), fp32, fp16, bf16.")
    ] = "auto",
    batch_size: Annotated[
        int | None,
        typer.Option(
            "--batch-size", min=1, help="Images or text pieces at once.  [default: 32 on a CPU, 512 on a GPU]"
        ),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=0, help="Processes that decode.  [default: cores - 1, at most 16]")
    ] = None,
    shard_size: Annotated[
        int, typer.Option("--shard-size", min=1, help="Items per shard: what a killed run may lose.")
    ] = 2048,
    encoder: Annotated[
        str | None,
        typer.Option("--encoder", help="Name of the features; text gets its source behind it.  [default: clip-MODEL]"),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            "--ray-address", help="Ray cluster whose GPUs do it: auto, HOST:PORT, or local.  [default: this process]"
        ),
    ] = None,
    ray_workers: Annotated[
        int | None,
        typer.Option("--ray-workers", min=1, help="Workers of the cluster.  [default: one per GPU, or per 4 cores]"),
    ] = None,
    overwrite: Overwrite = False,
) -> None:
    """Encode texts and images with a frozen CLIP model.

    The same command continues a killed run.
    """
    from llmemf.features.item_sources import find_sources

    if ray_workers is not None and ray_address is None:
        raise InputError(f"--ray-workers {ray_workers} without --ray-address: name the cluster, or `local`")
    scenario = prepared.load()
    sources, absent = find_sources(scenario, kinds_of(kind), text or ["title+llm"])
    for content in absent:
        say(f"note: no item of scenario {scenario.name!r} has {content}; only the rest is encoded")

    from llmemf.features.clip import SCHEMAS, ClipSettings, load_clip, resolve_device
    from llmemf.features.encode_job import make_job

    weights = pretrained if pretrained is not None else "" if model.startswith(SCHEMAS) else "openai"
    if weights.startswith("~"):
        weights = str(Path(weights).expanduser())
    with ExitStack() as stack:
        pool = None
        if ray_address is not None:
            from llmemf.features.cluster import Pool, connected

            resources = stack.enter_context(connected(ray_address))
            has_gpus = resources.get("GPU", 0) >= 1
            chosen, precision = resolve_device(device.split(":")[0], precision, cuda=has_gpus)
            pool = Pool.of(resources, chosen, ray_workers)
        else:
            chosen, precision = resolve_device(device, precision)
        settings = ClipSettings(model, weights, chosen, precision)
        say(f"model {model} {weights}".rstrip() + f" on {pool or chosen} in {precision}")
        # With a cluster it is loaded here only to know its weights.
        clip = load_clip(settings, device="cpu" if pool else None)
        jobs = [
            make_job(
                scenario,
                source,
                clip,
                encoder=encoder,
                batch_size=batch_size,
                workers=workers,
                shard_size=shard_size,
            )
            for source in sources
        ]
        jobs = [job for job in jobs if not _is_up_to_date(job, overwrite)]
        written = [_encode(job, clip, pool, overwrite) for job in jobs]
    if written:
        _tell(scenario, written)


def _is_up_to_date(job: Job, overwrite: bool) -> bool:
    """Whether there is nothing to do; features made from anything else are replaced only on demand."""
    difference = None if overwrite else job.difference()
    if difference:
        raise InputError(
            f"features {job.name} exist already and were made from something else ({', '.join(difference)} differ): "
            "give --overwrite to replace them, or --encoder NAME to keep both"
        )
    if difference is not None:
        job.store.remove()
        say(f"{job.name}: up to date, nothing to do")
    return difference is not None


def _encode(job: Job, clip: Clip, pool: Pool | None, overwrite: bool) -> FeatureMatrix:
    """Encode what is missing of a job, here or on a cluster, and write its matrix."""
    from llmemf.features.cluster import encode_on_cluster
    from llmemf.features.encoding import encode_shards

    with job.store.locked():
        pending = job.store.pending(job.source)
        if len(pending) < job.store.count:
            say(f"{job.name}: {job.store.count - len(pending)} of {job.store.count} shards are there already")
        total, done = job.with_content(pending), 0

        def count(items: int) -> None:
            nonlocal done
            done += items
            line.show(done, total)

        try:
            with ProgressLine(f"items of {job.name}") as line:
                if pool is None:
                    for _ in encode_shards(job, clip, pending, count):
                        pass
                else:
                    encode_on_cluster(job, clip.settings, pool, pending, count)
        except KeyboardInterrupt:
            kept = job.store.count - len(job.store.pending(job.source))
            say(
                f"stopped: {kept} of {job.store.count} shards of {job.name} are kept; the same command encodes the rest",
                error=True,
            )
            raise typer.Exit(INTERRUPTED) from None
        return job.finish(overwrite=overwrite)


def _tell(scenario: Scenario, matrices: Sequence[FeatureMatrix]) -> None:
    """What was written, what a user should know of it, and how to use it."""
    from llmemf.commands.feature_view import print_features

    folder = scenario.folder
    assert folder is not None
    print_features(scenario, matrices)
    for matrix in matrices:
        if matrix.details.get("items_with_unreadable_image"):
            manifest = folder / "features" / matrix.name / "manifest.json"
            say(f"note: {matrix.name}: all of them are listed in {manifest}")
    chosen: list[str] = []
    for kind in dict.fromkeys(one.kind for one in matrices):
        first, *others = (one.encoder for one in matrices if one.kind == kind)
        chosen += ["--set", f"{kind}_encoder={first}"]
        for other in others:
            say(f"or:   --set {kind}_encoder={other}")
    say(f"also: {hint(folder.parent, 'features', 'show', scenario.name)}")
    say(f"next: {hint(folder.parent, 'sweep', '--scenario', scenario.name, *chosen)}")


@shared_options(prepared=Prepared)
def show(
    prepared: Prepared,
    output: Annotated[
        Path | None, typer.Option("--output", help="The page.  [default: features.html in the scenario's folder]")
    ] = None,
    items: Annotated[int, typer.Option("--items", min=0, help="Items of each domain that are shown.")] = 4,
    seed: Annotated[int, typer.Option("--seed", help="Which items are shown.")] = 0,
) -> None:
    """Check and list all features of a scenario.

    Writes a page that shows what they are worth.
    """
    from llmemf.commands.feature_view import print_features
    from llmemf.features.matrix import FeatureMatrix, feature_folders

    scenario = prepared.load()
    folders = feature_folders(scenario)
    if not folders:
        offline = prepared.hint("features", "offline", scenario.name)
        say(f"scenario {scenario.name!r} has no features yet; make them: {offline}")
        return
    matrices = [FeatureMatrix.load(folder, verify=True) for folder in folders]
    for matrix in matrices:
        matrix.check(scenario)
    print_features(scenario, matrices)

    from llmemf.commands.feature_view import write_page
    from llmemf.features.feature_report import measure_features

    report = measure_features(scenario, matrices, items=items, seed=seed)
    for warning in report.warnings:
        say(f"warning: {warning}")
    path = output or scenario.location / "features.html"
    write_page(report, path)
    say(f"page    {path}")
