"""Train one model on one scenario, and score a checkpoint or an exported model.

llmemf train NAME --set lr=1e-3 --output runs/first
llmemf train NAME --config best.yaml
llmemf evaluate runs/first NAME --split test
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.table import Table

from llmemf.commands.data_options import DEFAULT_ROOT, DataRoot, Existing, hint, say, show
from llmemf.errors import InputError
from llmemf.ranking_names import METRICS, ranking_rows

if TYPE_CHECKING:
    from llmemf.config import TrialConfig
    from llmemf.features.matrix import FeatureMatrix
    from llmemf.scenarios.scenario import Scenario

Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, or cuda:N.")]


def train(
    name: Existing,
    model: Annotated[
        str | None, typer.Option("--model", help="The system, see `llmemf models`.  [default: llm_emf]")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option("--config", help="YAML with settings, for example a sweep's best.yaml.  [default: none]"),
    ] = None,
    assignments: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="A setting; stronger than --config. Repeatable."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option("--output", help="Checkpoint folder, written after every epoch.  [default: none is written]"),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue from the checkpoint in --output, or begin where it has none yet.")
    ] = False,
    data_root: DataRoot = DEFAULT_ROOT,
) -> None:
    """Train one model; the test split is not read."""
    from llmemf.checkpoint import is_checkpoint
    from llmemf.config import build_config, parse_assignment, read_yaml
    from llmemf.features.finding import present_modalities
    from llmemf.models import model_class
    from llmemf.removed import without_removed

    values = without_removed(read_yaml(config), where=str(config)) if config else {}
    values.update(parse_assignment(text) for text in assignments or [])
    if model is not None:
        values["model"] = model
    system = model_class(values.setdefault("model", "llm_emf"))
    field = system.config_class.model_fields.get("modalities")
    if field is not None and "modalities" not in values:
        left, note = present_modalities(field.default, data_root / name)
        if note:
            values["modalities"] = left
            say(note)
    settings = build_config(system.config_class, values, where=str(config) if config else "--set")
    if resume and output is None:
        raise InputError("--resume continues from a checkpoint: name its folder with --output")
    if output and not resume and is_checkpoint(output):
        raise InputError(f"{output} holds a checkpoint already: give --resume, or another --output")
    if output and resume and not output.is_dir():
        raise InputError(f"--resume: there is no folder {output}: leave out --resume, or give the --output of that run")
    _run(name, settings, output, resume, data_root)


def _features(settings: TrialConfig, scenario: Scenario) -> dict[str, FeatureMatrix]:
    """The matrices that the system reads with these settings, by kind."""
    from llmemf.features.finding import find_features
    from llmemf.models import model_class

    kinds = sorted(model_class(settings.model).needs(settings))
    return {kind: find_features(scenario, kind, getattr(settings, f"{kind}_encoder")) for kind in kinds}


def _run(name: str, settings: TrialConfig, output: Path | None, resume: bool, data_root: Path) -> None:
    from llmemf.batches import TrialData
    from llmemf.checkpoint import is_checkpoint
    from llmemf.io import remove_abandoned, writable_folder
    from llmemf.models.recommender import num_parameters
    from llmemf.scenarios.scenario import find_scenario
    from llmemf.training import NonFiniteLoss, Trainer

    scenario = find_scenario(name, data_root)
    features = _features(settings, scenario)
    if output is not None:
        writable_folder(output)
        remove_abandoned(output)
    trainer = Trainer(settings, TrialData.build(scenario, **features))
    if output is not None:
        if resume and is_checkpoint(output):
            trainer.load(output)
        elif resume:
            say(f"{output} holds no checkpoint yet: training begins with epoch 1")
    encoders = ", ".join(f"{kind} by {matrix.encoder}" for kind, matrix in features.items()) or "none"
    say(
        f"{settings.model} on {scenario.name} ({scenario.fingerprint[:8]}), {len(trainer.train_sequences):,} training "
        f"sequences, {num_parameters(trainer.model):,} parameters, features: {encoders}, {trainer.device}"
    )
    try:
        for metrics in trainer.epochs():
            domains = " | ".join(
                f"{domain} MRR {metrics[f'val/{domain}/mrr']:.4f} HR@10 full {metrics[f'val_full/{domain}/hr_10']:.4f}"
                for domain in scenario.domains
                if f"val/{domain}/mrr" in metrics
            )
            best = "  best so far" if metrics["best_epoch"] == metrics["epoch"] else ""
            say(
                f"epoch {metrics['epoch']}/{settings.epochs}  loss {metrics['train/loss']:.3f}  {domains}  "
                f"{metrics['seconds_train']:.0f}+{metrics['seconds_valid']:.0f} s{best}"
            )
            if output:
                trainer.save(output)
    except NonFiniteLoss as error:
        raise InputError(f"{error}; lower the learning rate or clip the gradient (clip_norm)") from None
    if output:
        command = hint(data_root, "evaluate", str(output), name, "--split", "test")
        say(f"checkpoint: {output}   score it once: {command}")


def evaluate(
    folder: Annotated[
        Path,
        typer.Argument(metavar="FOLDER", help="A checkpoint (best.safetensors, config.yaml), or an exported model."),
    ],
    name: Existing,
    split: Annotated[Literal["valid", "test"], typer.Option("--split", help="Which held-out split.")] = "test",
    data_root: DataRoot = DEFAULT_ROOT,
    device: Device = "auto",
) -> None:
    """Score a checkpoint or an exported model on a held-out split."""
    from llmemf.export.folder import is_exported
    from llmemf.scenarios.scenario import find_scenario

    scenario = find_scenario(name, data_root)
    score = _score_export if is_exported(folder) else _score_checkpoint
    metrics, note = score(folder, scenario, split, device)
    table = Table("domain", "ranked among", *(metric.upper().replace("_", "@") for metric in METRICS), title=split)
    for domain in scenario.domains:
        for among, cells in ranking_rows(metrics, split, domain, METRICS):
            table.add_row(domain, among, *cells)
    show(table)
    if note:
        say(note)


def _score_checkpoint(folder: Path, scenario: Scenario, split: str, device: str) -> tuple[dict[str, float], str]:
    """Metrics, and an empty note."""
    from llmemf.checkpoint import evaluate_checkpoint, read_checkpoint, stored_config

    settings = stored_config(folder, read_checkpoint(folder))
    return evaluate_checkpoint(folder, scenario, _features(settings, scenario), split, device=device), ""


def _score_export(folder: Path, scenario: Scenario, split: str, device: str) -> tuple[dict[str, float], str]:
    """Metrics, and a note that compares them with the logged ones."""
    from llmemf.export.evaluation import compare_with_logged, evaluate_export
    from llmemf.export.folder import ExportedModel

    model = ExportedModel.load(folder, device=device)
    metrics = evaluate_export(model, scenario, split)
    return metrics, str(
        compare_with_logged(model, metrics, split) or f"no numbers of this split were logged in {folder}"
    )
