"""How many epochs does a search need to find what the whole grid would find? Replays over recorded learning curves.

    python benchmarks/search_efficiency.py record curves.csv --storage /tmp/curves --seeds 0,1,2 -- \
        --scenario sample --epochs 9 --set lr=3e-3,1e-2,3e-2 --set alpha=0.2,0.6
    python benchmarks/search_efficiency.py replay curves.csv [--orders 36] [--share 0.99,0.95] [--seen one|mixed|mean]

    python benchmarks/search_efficiency.py between benchmarks/recordings/sample.csv.gz [--orders 100] [--trials 24] \
        [--workers 1,4,16]

`record` runs the grid once per seed with `sweeps/grid.py`, no trial stopped early (what stands after `--` are its options),
and writes one table; the same command continues after an interruption. `--gather` only writes the table of what is there.

`replay` searches that table many times, in shuffled orders: with the project's own search and halving, and the ways that
they have to beat (the plain grid, with patience, in random order, and all points for one epoch, then the best few). A
replay has reached the goal when the final objective of its leading trial, as a mean over seeds, is at least `--share` of
the grid's best and stays so. What a failure costs: all epochs of the search, then those of the whole grid. A search sees
the curves of one seed, as a sweep does, or, to tell noise from what early epochs hide, their mean over seeds (`--seen`).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
from curves import Curves, gather, read_table, record
from outcomes import Landscape, Outcome, correlations, landscape, mean_difference
from replay import Choices, Course, draw_seeds, replay_grid, replay_sweep, replay_top, replay_top_between
from surrogate import Surrogate

from llmemf.errors import InputError
from sweeps.core.earlier import TRAINED_FIRST
from sweeps.search.rungs import milestones
from sweeps.state.sweep_record import Observation

OTHER_SEED = 1000
"""The sweep that a warm one learns from has a seed so far away."""
GRACE_PERIODS = (1, 2, 3)
REDUCTION_FACTORS = (2, 3, 4)
SAMPLERS = {
    "grid order": {"search": "grid"},
    "random": {"search": "random"},
    "half grid, then TPE": {"search": "optuna"},
    "TPE": {"search": "optuna", "grid_points": 0},
}
SHIPPED = "2 / 3"
"""Grace period and reduction factor of the shipped scenario files for few epochs (sample, movie_book_windows)."""

Replay = Callable[[int, np.ndarray], Course]


def strategies(curves: Curves, options: argparse.Namespace) -> dict[str, Replay]:
    """Name -> one replay of it, given its order and its seeds."""

    def sweep(**choices: object) -> Replay:
        chosen = Choices(trials=options.trials, **choices)
        return lambda order, seeds: replay_sweep(curves, chosen, order, seeds, options.between)

    found: dict[str, Replay] = {
        "grid": lambda order, seeds: replay_grid(curves, order, seeds),
        f"grid, patience {options.patience}": lambda order, seeds: replay_grid(
            curves, order, seeds, patience=options.patience
        ),
        "random order, no repetition": lambda order, seeds: replay_sweep(
            curves, Choices("grid", "none"), order, seeds, options.between
        ),
    }
    for keep in (1, 3, 5):
        found[f"1 epoch, best {keep} go on"] = lambda order, seeds, keep=keep: replay_top(
            curves, order, seeds, first=1, keep=keep
        )
    for name, sampler in SAMPLERS.items():
        if name != "grid order":
            found[f"{name}, none stopped"] = sweep(scheduler="none", **sampler)
    for name, sampler in SAMPLERS.items():
        for grace in GRACE_PERIODS:
            for factor in REDUCTION_FACTORS:
                if grace < curves.epochs:
                    found[f"{name}, ASHA {grace} / {factor}"] = sweep(
                        grace_period=grace, reduction_factor=factor, **sampler
                    )
    for workers in options.workers:
        if workers > 1:
            found[f"half grid, then TPE, ASHA {SHIPPED}, {workers} workers"] = sweep(
                workers=workers, **SAMPLERS["half grid, then TPE"]
            )
    return found


def replay_all(
    curves: Curves, found: dict[str, Replay], *, orders: int, mixed: bool = False
) -> dict[str, list[Course]]:
    """Every strategy in the same orders with the same seeds."""
    seeds = [draw_seeds(curves, order, mixed=mixed) for order in range(orders)]
    return {name: [once(order, seeds[order]) for order in range(orders)] for name, once in found.items()}


def describe(curves: Curves, lands: dict[float, Landscape]) -> str:
    """What the table itself says, for several goals (share of the best -> landscape)."""
    land = next(iter(lands.values()))
    point = ", ".join(f"{key} {value:g}" for key, value in curves.space.point(land.best).items())
    lines = [
        f"{len(curves.final)} points, {len(curves.seeds)} seeds, {curves.epochs} epochs",
        f"the plain grid costs {len(curves.final) * curves.epochs} epochs per seed",
        f"best seed-mean {land.value:.4f} at {point}; worst {curves.final.min():.4f}",
        *(f"goal {share:.0%}: {land.goal:.4f}, fulfilled by {land.good} points" for share, land in lands.items()),
        f"noise: standard deviation over seeds {land.noise:.5f} at the best point ({land.noise / land.value:.1%})",
        "the grid's winner of each seed alone, as a share of the best seed-mean: "
        + ", ".join(f"{value / land.value:.1%}" for value in land.luckiest),
    ]
    if curves.left_out:
        lines.append(f"left out, not complete: seeds {', '.join(map(str, curves.left_out))}")
    return "\n".join(lines)


def correlation_table(curves: Curves) -> str:
    """Spearman per epoch: mean over seeds, lowest and highest."""
    values = correlations(curves)
    lines = ["| epoch | rank correlation with the final seed-mean | lowest and highest seed |", "|---|---|---|"]
    for epoch, column in enumerate(values.T, start=1):
        lines.append(f"| {epoch} | {column.mean():.2f} | {column.min():.2f} to {column.max():.2f} |")
    return "\n".join(lines)


def outcome_table(outcomes: dict[str, Outcome], *, against: str) -> str:
    """One row per strategy but for halving that is not shipped.

    Args:
        against: the strategy whose mean cost is the unit of the ratio.
    """
    lines = [
        "| search | epochs to goal: median (quartiles) | failures | epochs in all (in a row) | cost | speed |",
        "|---|---|---|---|---|---|",
    ]
    unit = outcomes[against].cost.mean()
    for name, outcome in outcomes.items():
        if "ASHA" in name and f"ASHA {SHIPPED}" not in name:
            continue
        first, median, third = (f"{value:.0f}" if np.isfinite(value) else "never" for value in outcome.quartiles())
        lines.append(
            f"| {name} | {median} ({first} to {third}) | {outcome.failures:.0%} "
            f"| {outcome.spent.mean():.0f} ({outcome.rounds.mean():.0f}) "
            f"| {outcome.cost.mean():.0f} | {unit / outcome.cost.mean():.2f} |"
        )
    return "\n".join(lines)


def choice_table(outcomes: dict[str, Outcome]) -> str:
    """Cost and failures of each choice of halving under each sampler, and its difference to the shipped choice.

    The difference is that of the mean over samplers, replay by replay.
    """
    lines = [f"| ASHA | {' | '.join(SAMPLERS)} | all: cost - shipped (95 %) |", "|---" * (len(SAMPLERS) + 2) + "|"]

    def costs(choice: str) -> np.ndarray:
        return np.mean([outcomes[f"{sampler}, ASHA {choice}"].cost for sampler in SAMPLERS], axis=0)

    for choice in [f"{grace} / {factor}" for grace in GRACE_PERIODS for factor in REDUCTION_FACTORS]:
        if f"TPE, ASHA {choice}" not in outcomes:
            continue
        cells = [outcomes[f"{sampler}, ASHA {choice}"] for sampler in SAMPLERS]
        texts = [f"{cell.cost.mean():.0f} ({cell.failures:.0%})" for cell in cells]
        mean, low, high = mean_difference(costs(choice), costs(SHIPPED))
        texts.append("shipped" if choice == SHIPPED else f"{mean:+.0f} ({low:+.0f} to {high:+.0f})")
        lines.append(f"| {choice} | {' | '.join(texts)} |")
    return "\n".join(lines)


BETWEEN = {
    "grid, patience 3": Choices("grid", "none", patience=3),
    "random": Choices("random", "none"),
    "TPE": Choices("optuna", "none", grid_points=0),
    "1 epoch, best 3 continue": None,
    "grid, ASHA": Choices("grid"),
    "random, ASHA": Choices("random"),
    "TPE, ASHA": Choices("optuna", grid_points=0),
    "half grid, then TPE, ASHA": Choices("optuna"),
    "auto, ASHA": Choices("auto"),
    "auto, ASHA, warm": Choices("auto"),
    "oracle, ASHA": Choices("random"),
}
"""Searches that are compared where settings between the recorded points count. The oracle trains the best point first, then random
ones, with the noise that all have; a warm search learns from a search of another seed, as `--warm-start` does."""


def between_course(surrogate: Surrogate, name: str, options: argparse.Namespace, order: int, workers: int) -> Course:
    """One replay of one row of `BETWEEN`."""
    choices = BETWEEN[name]
    if choices is None:
        return replay_top_between(surrogate, order, trials=options.trials, first=1, keep=3)
    chosen = replace(choices, trials=options.trials, grace_period=options.grace, workers=workers)
    first, seen, seed = [], [], np.array([order])
    if name.startswith("oracle"):
        first = [surrogate.best_point]
    if name.endswith("warm"):
        other = order + OTHER_SEED
        earlier = replay_sweep(surrogate, chosen, other, np.array([other]))
        for settings, epochs in zip(earlier.settings, earlier.trials):
            values = surrogate.curve(surrogate.mixture(settings), np.array([other]))[:epochs]
            seen.append(Observation(settings=settings, values=milestones(dict(enumerate(values.tolist(), start=1)))))
        whole = [item for item in seen if max(item.values) == surrogate.epochs]
        first = [
            item.settings
            for item in sorted(whole, key=lambda item: -item.values[surrogate.epochs])[
                : min(TRAINED_FIRST, max(1, options.trials // 4))
            ]
        ]
    return replay_sweep(surrogate, chosen, order, seed, first=first, observations=seen)


def print_between(surrogate: Surrogate, options: argparse.Namespace) -> None:
    """A row per search: failures, cost with its 95 % interval over orders, and the true value of the last leader."""
    whole = len(surrogate.final) * surrogate.epochs
    print(
        f"{len(surrogate.final)} recorded points, {surrogate.epochs} epochs; best true value {surrogate.goal_value:.4f}, best recorded "
        f"seed-mean {surrogate.final.max():.4f}, median {np.median(surrogate.final):.4f}; noise of one seed {surrogate.noise:.1%} of "
        f"the best; left-out points: rank correlation {surrogate.held_out:.2f}\n{options.orders} replays each, {options.trials} "
        f"trials; a failure is charged {whole} epochs more\n"
    )
    head = " | ".join(f"{share:.0%}: median | failures | cost (95 %)" for share in options.share)
    print(
        f"| search, workers | {head} | epochs in all (in a row) | last leader |\n{'|---' * (3 + 3 * len(options.share))}|",
        flush=True,
    )
    rows = [
        (name, workers)
        for name in options.only or BETWEEN
        for workers in (options.workers if BETWEEN[name] else options.workers[:1])
    ]
    for name, workers in rows:
        courses = [between_course(surrogate, name, options, order, workers) for order in range(options.orders)]
        cells = []
        for share in options.share:
            outcome = Outcome.of(courses, share * surrogate.goal_value, whole)
            median = outcome.quartiles()[1]
            mean, low, high = mean_difference(outcome.cost, np.zeros(len(courses)))
            cells += [
                f"{median:.0f}" if np.isfinite(median) else "never",
                f"{outcome.failures:.0%}",
                f"{mean:.0f} ({low:.0f} to {high:.0f})",
            ]
        leader = np.mean([course.incumbents[-1] for course in courses]) / surrogate.goal_value
        cells += [f"{outcome.spent.mean():.0f} ({outcome.rounds.mean():.0f})", f"{leader:.1%}"]
        print(f"| {name}, {workers} | {' | '.join(cells)} |", flush=True)


def split(words: list[str]) -> tuple[list[str], list[str]]:
    """The words before and after `--`; argparse does not keep options of another command apart."""
    cut = words.index("--") if "--" in words else len(words)
    return words[:cut], words[cut + 1 :]


def numbers(text: str) -> list[int]:
    return [int(part) for part in text.split(",")]


def shares(text: str) -> list[float]:
    return [float(part) for part in text.split(",")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser(
        "record", help="run the grid over seeds and write its curves", epilog="after --: options of sweeps/grid.py"
    )
    recording.add_argument("table", type=Path)
    recording.add_argument("--storage", type=Path, required=True, help="folder of the sweeps")
    recording.add_argument("--name", default="curves", help="the sweeps are NAME-seed0, NAME-seed1, ...")
    recording.add_argument("--seeds", type=numbers, default=[0, 1, 2])
    recording.add_argument("--gather", action="store_true", help="run nothing; write what has been recorded")
    replaying = commands.add_parser("replay", help="search recorded curves many times")
    replaying.add_argument("table", type=Path)
    replaying.add_argument("--orders", type=int, default=36, help="replays of each search")
    replaying.add_argument(
        "--share", type=shares, default=[0.99], help="of the grid's best seed-mean: the goal, or goals"
    )
    replaying.add_argument("--workers", type=numbers, default=[1, 4], help="trials at once, of the shipped search")
    replaying.add_argument("--trials", type=int, help="of each sweep  [default: as many as the grid has points]")
    replaying.add_argument("--patience", type=int, default=3, help="of the grid with patience")
    replaying.add_argument("--between", choices=("cells", "linear"), default="cells", help="settings off the grid")
    seen = "curves of one seed, of a seed drawn per point, or means over seeds"
    replaying.add_argument("--seen", choices=("one", "mixed", "mean"), default="one", help=seen)
    between = commands.add_parser("between", help="search a landscape fitted to curves recorded at random points")
    between.add_argument("table", type=Path)
    between.add_argument("--orders", type=int, default=100, help="replays of each search")
    between.add_argument("--trials", type=int, default=24, help="of each sweep")
    between.add_argument("--share", type=shares, default=[0.99, 0.9], help="of the best true value: the goal, or goals")
    between.add_argument("--grace", type=int, default=2, help="epochs before a trial can be stopped")
    between.add_argument("--workers", type=numbers, default=[1], help="trials at once; several are compared")
    between.add_argument("--only", action="append", choices=list(BETWEEN), help="this search alone; repeatable")
    given, handed_on = split(sys.argv[1:])
    options = parser.parse_args(given)
    try:
        if options.command == "record":
            folders = [options.storage.resolve() / "sweeps" / f"{options.name}-seed{seed}" for seed in options.seeds]
            if not options.gather:
                folders = record(options.name, options.seeds, options.storage.resolve(), handed_on)
            table = gather([folder for folder in folders if folder.exists()])
            table.to_csv(options.table, index=False)
            print(f"{options.table}: {len(table)} epochs of seeds {', '.join(map(str, table['seed'].unique()))}")
            return
        if options.command == "between":
            print_between(Surrogate.from_table(read_table(options.table)), options)
            return
        curves = Curves.from_table(read_table(options.table))
        if curves.epochs < 3:
            raise InputError(f"{options.table}: {curves.epochs} epochs; halving needs at least 3 to be compared")
    except InputError as error:
        print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
        sys.exit(2)
    lands = {share: landscape(curves, share) for share in options.share}
    print(describe(curves, lands), correlation_table(curves), sep="\n\n", end="\n\n", flush=True)
    seen = curves.averaged() if options.seen == "mean" else curves
    courses = replay_all(seen, strategies(seen, options), orders=options.orders, mixed=options.seen == "mixed")
    for share, land in lands.items():
        grid_epochs = len(curves.final) * curves.epochs
        outcomes = {name: Outcome.of(runs, land.goal, grid_epochs) for name, runs in courses.items()}
        print(f"goal {share:.0%}, {options.orders} replays each; speed: cost of the grid with patience / cost\n")
        print(outcome_table(outcomes, against=f"grid, patience {options.patience}"), end="\n\n")
        print(choice_table(outcomes), end="\n\n")


if __name__ == "__main__":
    main()
