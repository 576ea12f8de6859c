"""How fast every system trains: sequences per second, with SASRec as the unit.

    python benchmarks/models.py [--models sasrec,gru4rec+variant=pinet] [--max-length 15]
                                [--scenario movie_book_windows --data-root data] [--rounds 5] [--steps 4]
                                [--batch-size 256] [--dim 64] [--threads 1] [--device cpu]

One run is a few training steps (loss, gradients, Adam) of one system. Runs are interleaved: every round visits all
systems, so that what else happens on the machine meets all of them; the medians over the rounds are shown. A system that
lacks its features is shown as such. Widths are equal where a system has one width to set; settings of its own stand behind its
name, each after a `+`; everything else is its default.
Systems in closed form take no step: what counts is the time to build them, once, over all sequences.

Without --scenario a made-up catalogue is used: histories of 6 to 15 items over two domains, features drawn at random.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from made_up import made_up
from rich.console import Console
from rich.table import Table

from llmemf.batches import TrialData
from llmemf.config import build_config, parse_assignment
from llmemf.errors import InputError
from llmemf.features.finding import find_features
from llmemf.features.matrix import KINDS
from llmemf.models import MODELS, model_class
from llmemf.models.recommender import num_parameters
from llmemf.scenarios.scenario import find_scenario
from llmemf.training import Trainer

UNIT = "sasrec"
WIDTHS = ("dim", "id_dim")


def prepared(name: str, data_root: Path) -> TrialData:
    """A prepared scenario with the features that it has."""
    scenario, features = find_scenario(name, data_root), {}
    for kind in KINDS:
        try:
            features[kind] = find_features(scenario, kind)
        except InputError:
            continue
    return TrialData.build(scenario, **features)


def configuration(variant: str, arguments: argparse.Namespace):
    """The configuration of a system, `NAME` or `NAME+KEY=VALUE+...`."""
    name, *own = variant.split("+")
    fields = model_class(name).config_class.model_fields
    wanted = {"device": arguments.device, "batch_size": arguments.batch_size, "objective": arguments.objective}
    wanted |= {"max_length": arguments.max_length, **dict.fromkeys(WIDTHS, arguments.dim)}
    wanted = {key: value for key, value in wanted.items() if key in fields} | dict(map(parse_assignment, own))
    return build_config(model_class(name).config_class, {"model": name, **wanted})


def runner(trainer: Trainer, steps: int) -> Callable[[], float]:
    """A function that takes some training steps and returns the sequences per second."""
    generator = torch.Generator().manual_seed(0)

    def run() -> float:
        size = min(trainer.config.batch_size, len(trainer.train_sequences))
        batches = [
            torch.randperm(len(trainer.train_sequences), generator=generator)[:size].to(trainer.device)
            for _ in range(steps)
        ]
        trainer.model.train()
        _wait(trainer.device)
        began = time.perf_counter()
        for index in batches:
            trainer.optimizer.zero_grad(set_to_none=True)
            trainer.model.training_loss(trainer.train_sequences.batch(index)).backward()
            trainer.optimizer.step()
        _wait(trainer.device)
        return size * steps / (time.perf_counter() - began)

    return run


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def measure(names: list[str], data: TrialData, arguments: argparse.Namespace) -> dict[str, dict]:
    """Per system: rates of all rounds and parameters, or why it did not run."""
    found: dict[str, dict] = {}
    runs: dict[str, Callable[[], float]] = {}
    for name in names:
        config = configuration(name, arguments)
        missing = [
            kind for kind in sorted(model_class(config.model).needs(config)) if getattr(data, kind, None) is None
        ]
        if missing:
            found[name] = {"note": f"no {' and '.join(missing)} features here"}
            continue
        began = time.perf_counter()
        trainer = Trainer(config, data)
        found[name] = {"rates": [], "parameters": num_parameters(trainer.model)}
        if trainer.model.closed_form:
            found[name] |= {"note": f"built in {time.perf_counter() - began:.1f} s, no training"}
            continue
        runs[name] = runner(trainer, arguments.steps)
        runs[name]()  # warm-up: allocations, and the optimiser's state
    for _ in range(arguments.rounds):
        for name, run in runs.items():
            found[name]["rates"].append(run())
    return found


def table(found: dict[str, dict]) -> Table:
    """Fastest first, each beside the unit's rate of the same round."""
    shown = Table(box=None, padding=(0, 1))
    for column in ("system", "sequences/s", "times SASRec's", "min - max", "parameters", ""):
        shown.add_column(column, justify="left" if column in ("system", "") else "right")
    unit = found.get(UNIT, {}).get("rates")
    for name, row in sorted(found.items(), key=lambda pair: -statistics.median(pair[1].get("rates") or [0])):
        rates = row.get("rates") or []
        parameters = f"{row['parameters']:,}" if "parameters" in row else ""
        if not rates:
            shown.add_row(name, "", "", "", parameters, row["note"])
            continue
        ratios = [rate / own for rate, own in zip(rates, unit)] if unit else []
        spread = f"{min(ratios):.2f} - {max(ratios):.2f}" if ratios else ""
        middle = f"{statistics.median(ratios):.2f}" if ratios else ""
        shown.add_row(name, f"{statistics.median(rates):,.0f}", middle, spread, parameters, "")
    return shown


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", help="comma-separated; all by default. SASRec is always among them.")
    parser.add_argument("--scenario", help="a prepared scenario instead of made-up data")
    parser.add_argument("--data-root", default="data", type=Path)
    parser.add_argument("--items", default=20_000, type=int, help="of made-up data")
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--steps", default=4, type=int, help="training steps of one run")
    parser.add_argument("--batch-size", default=256, type=int)
    parser.add_argument("--max-length", default=15, type=int, help="latest items of a history")
    parser.add_argument("--dim", default=64, type=int)
    parser.add_argument("--objective", default="sampled", choices=("sampled", "full"), help="where a system has both")
    parser.add_argument("--threads", default=1, type=int)
    parser.add_argument("--device", default="cpu")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    try:
        names = arguments.models.split(",") if arguments.models else list(MODELS)
        for name in names:
            configuration(name, arguments)
        names = list(dict.fromkeys([UNIT, *names]))
        if arguments.scenario:
            data = prepared(arguments.scenario, arguments.data_root)
        else:
            data = made_up(arguments.items, 8 * arguments.batch_size)
        console = Console(highlight=False, width=None if sys.stdout.isatty() else 120)
        console.print(
            f"{data.num_items:,} items, {len(data.train):,} sequences, batches of {arguments.batch_size}, width "
            f"{arguments.dim}, {arguments.objective} softmax, {arguments.threads} thread(s), {arguments.device}; medians "
            f"of {arguments.rounds} interleaved rounds"
        )
        console.print(table(measure(names, data, arguments)))
    except InputError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
