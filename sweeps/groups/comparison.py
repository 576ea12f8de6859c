"""Comparisons: each system with one budget of search over its own default space, its choice over seeds, one table.

The rows are systems. Each is tuned, trained over seeds and tested, against the best other system or one named beforehand.
"""

from __future__ import annotations

import datetime
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.config import parse_assignment
from llmemf.errors import InputError, nearest
from llmemf.models import MODELS, model_class
from llmemf.scenarios.scenario import Scenario
from sweeps.cluster.ray_session import room
from sweeps.core import settings
from sweeps.core.console import facts_table
from sweeps.core.descriptions import describe_resources
from sweeps.core.plan import Plan
from sweeps.core.settings import IMMUTABLE_SETTINGS, SHARED_SETTINGS, space_keys
from sweeps.core.sweep_data import load_data
from sweeps.groups.columns import CSV_CELLS, paper_heading
from sweeps.groups.group import BEST, Group, Row
from sweeps.groups.kind import Kind
from sweeps.groups.notes import protocol_notes, row_notes
from sweeps.groups.paper_numbers import FOOD_KITCHEN, MOVIE_BOOK, OWN_PAPER, in_table_order, shown_name
from sweeps.groups.plan import GroupOptions, new_group, of_scenario
from sweeps.groups.render import Block, Cell, Column, rich_table, tex
from sweeps.groups.row_sweeps import plan_search
from sweeps.groups.table import Table, TableRow
from sweeps.state.sweep_record import SweepSettings

DEFAULT_TRIALS = 20


def _checked_models(models: list[str] | None) -> list[str]:
    """The systems to compare in the order of the table: the named ones, or all."""
    for name in models or []:
        if name not in MODELS:
            raise InputError(f"--models: unknown system {name!r}: {nearest(name, MODELS)}")
    return in_table_order(list(dict.fromkeys(models or MODELS)))


def fill_rows(group: Group) -> None:
    """Check every `--set` (KEY=VALUE is for all systems that have the setting, MODEL.KEY=VALUE for one) and fill the rows.

    Raises:
        InputError: no system has it, a value is invalid, or it would make the systems incomparable.
    """
    for text in group.assignments:
        model, key = _addressed(text)
        if model is not None and model not in group.names:
            raise InputError(f"--set {text}: {model!r} is not compared: {nearest(model, group.names)}")
        if model is not None and key in SHARED_SETTINGS:
            raise InputError(
                f"--set {text}: {key} must be the same in all systems: write --set {text.partition('.')[2]}"
            )
        fields = [model_class(name).config_class.model_fields for name in ([model] if model else group.names)]
        if not any(key in own for own in fields):
            raise InputError(f"--set {text}: unknown key {key!r}: {nearest(key, sorted(set().union(*fields)))}")
        if key == "seed":
            raise InputError(f"--set {text}: give --seed for the searches, --seeds for the chosen configurations")
    group.rows = [_filled(group, name) for name in group.names]


def _addressed(text: str) -> tuple[str | None, str]:
    """The system that a `--set` is for, None for all, and its key."""
    key, _ = parse_assignment(text)
    model, dot, own = key.partition(".")
    return (model, own) if dot else (None, key)


def _filled(group: Group, model: str) -> Row:
    """The row of a system: what its search fixes, and its space."""
    model_type = model_class(model)
    config_class = model_type.config_class
    where, known = f"{group.scenario}: fixed", config_class.model_fields
    shared = {key: value for key, value in group.fixed.items() if key in known}
    fixed = settings.checked_settings(config_class, shared, where)
    space = settings.checked_space(config_class, dict(model_type.default_space()), where=model)
    own_settings, own = SweepSettings(model=model, fixed=fixed, space=space), []
    for text in group.assignments:
        addressed, key = _addressed(text)
        if addressed in (None, model) and key in known:
            own.append(text.partition(".")[2] if addressed else text)
    given = settings.apply_assignments(own_settings, own)
    notices = settings.drop_absent_modalities(own_settings, given, Path(group.data_root) / group.scenario)
    group.notices += [text for note in notices if (text := f"{shown_name(model)}: {note}") not in group.notices]
    for key in given:
        if key in (*IMMUTABLE_SETTINGS, *SHARED_SETTINGS):
            raise InputError(f"--set {key}: one value is expected: it must be the same in all systems")
    space = settings.merged_space(own_settings.space, given)
    fixed = {key: value for key, value in own_settings.fixed.items() if key not in space_keys(space)}
    return Row(name=model, title=shown_name(model), model=model, overrides=fixed, space=space)


TIMES = (
    "Search time: of all trials together, as long as they held their places. Training time: of one seed's training steps, "
    "mean over seeds. Trials may have run beside one another, so times compare only on a quiet machine."
)
COSTS = ("trials", "search time", "seeds", "training time", "epochs best/run", "parameters", "chosen")


def _count(parameters: int | None) -> str:
    """`812`, `65.5 k`, `12.3 M`."""
    if parameters is None:
        return "-"
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def _searches(group: Group, *, with_data: bool) -> tuple[dict[str, Plan], dict[str, str]]:
    """The planned search of every system, and the reason of each that cannot run, as far as this is known without data."""
    plans, problems = {}, {}
    for row in group.rows:
        try:
            plans[row.name] = plan_search(group, row)
            if with_data:
                load_data(plans[row.name])
        except InputError as error:
            problems[row.name] = str(error)
    return plans, problems


class Comparison(Kind):
    """Rows are systems, each searched over its own space."""

    name = "comparison"
    papers = (FOOD_KITCHEN, MOVIE_BOOK)
    line_name = "title"
    rows_title, rows_remark = "Costs", TIMES
    csv_columns = (
        "model", "system", "status", "outcome", *CSV_CELLS, "paper", "paper_data", "p", "p_holm", "against", "difference", "low", "high",
        "parameters", "training_seconds", "search_seconds", "search_trials", "best_epoch", "epochs_run", "reason",
    )  # fmt: skip

    def plan(self, options: GroupOptions, now: datetime.datetime) -> Group:
        values, shared = of_scenario(options)
        shared["search"] = SweepSettings.model_fields["search"].default
        shared |= {
            key: values[key] for key in ("search", "scheduler", "grace_period", "reduction_factor") if key in values
        }
        names, reference = _checked_models(options.models), options.reference or BEST
        if reference != BEST and reference not in names:
            raise InputError(f"--reference: {reference!r} is not compared: {nearest(reference, names)}")
        rows, trials = [Row(name=name, model=name) for name in names], options.trials_per_model or DEFAULT_TRIALS
        group = new_group(self.name, options, now, **shared, rows=rows, reference=reference, trials=trials)
        fill_rows(group)
        return group

    def extend(self, group: Group, models: list[str] | None) -> None:
        names = [*group.names, *(_checked_models(models) if models else [])]
        group.rows = [Row(name=name, model=name) for name in in_table_order(list(dict.fromkeys(names)))]
        fill_rows(group)
        _, problems = _searches(group, with_data=False)
        if len(problems) == len(group.rows):
            raise InputError(problems[group.names[0]])

    def finalize(self, group: Group, scenario: Scenario) -> None:
        fill_rows(group)

    def own_facts(self, group: Group) -> list[tuple[str, str]]:
        stopping = "ASHA stops the laggards" if group.scheduler == "asha" else "none is stopped early"
        budget = f"at most {group.trials} trials ({group.search}, {stopping}) of at most "
        seeds = f"then {text_format.plural(len(group.seeds), 'seed')} of the chosen configuration, each tested once"
        return [
            ("systems", f"{len(group.rows)}: {', '.join(row.title for row in group.rows)}"),
            *([("reference", shown_name(group.reference))] if group.reference != BEST else []),
            ("each", f"{budget}{text_format.plural(group.fixed['epochs'], 'epoch')}, {seeds}"),
        ]

    def params(self, group: Group) -> dict[str, object]:
        return {"trials_per_model": group.trials}

    def how(self, row: TableRow) -> str:
        cost, parameters = self.about(row), _count(row.result.parameters)
        return f"{cost['trials']} trials, {super().how(row)}, {cost['training time']} training each, {parameters} parameters"

    def caption(self, table: Table) -> str:
        return f"Systems on {tex(table.scenario.name)}."

    def about(self, row: TableRow, *, narrow: bool = False) -> dict[str, str]:
        """What a system cost and what its search chose."""
        result, search = row.result, row.result.search
        if not search or not result.seeds:
            return dict.fromkeys(COSTS, "-")
        seconds, best_epoch, epochs_run = (result.mean(name) for name in ("seconds", "best_epoch", "epochs_run"))
        stopped = f" ({search['pruned']} stopped{'' if narrow else ' early'})" if search["pruned"] else ""
        texts = (
            f"{search['trials']}{stopped}",
            text_format.duration(search["seconds"]),
            str(len(result.seeds)),
            text_format.duration(seconds) if seconds >= 10 else f"{seconds:.1f} s",
            f"{best_epoch:.3g}/{epochs_run:.3g}",
            _count(result.parameters),
            text_format.settings(result.chosen),
        )
        return dict(zip(COSTS, texts, strict=True))

    def csv_facts(self, table: Table, row: TableRow) -> dict[str, object]:
        result, outcome = row.result, row.result.outcome or "waiting"
        shared: dict[str, object] = {
            "model": row.name,
            "system": row.row.title,
            "status": result.status,
            "outcome": outcome,
            "reason": result.reason,
        }
        if outcome != "done" or not result.seeds:
            return shared
        return shared | {
            "parameters": result.parameters,
            "training_seconds": result.mean("seconds"),
            "search_seconds": result.search.get("seconds"),
            "search_trials": result.search.get("trials"),
            "best_epoch": result.mean("best_epoch"),
            "epochs_run": result.mean("epochs_run"),
        }

    def annotate(self, table: Table) -> None:
        for row in table.rows:
            status = row.result.status
            row.heading = row.row.title + (f" ({status})" if status not in ("", "faithful") else "")
        table.notes = protocol_notes(
            table,
            f"In percent: mean and standard deviation over {text_format.plural(len(table.group.seeds), 'seed')} of the "
            f"configuration that {table.group.trials} trials at most chose on validation, the same budget for every system. "
            "Each seed was tested once, at its best validation epoch. Bold: best; underlined: second.",
        )
        table.notes += _paper_notes(table)
        if any(row.heading == row.row.title for row in table.done):
            table.notes.append("A system without a remark in brackets is written faithfully from its source.")
        table.notes += row_notes(table)

    def print_rows(self, group: Group, scenario: Scenario | None, console: Console) -> None:
        """Every system with its space and trials, or why it cannot run, and where it comes from."""
        columns = [Column("system", right=False), Column("status", right=False), Column("trials"), Column("seeds")]
        block = Block("", [*columns, Column("searched", right=False, wrap=True)])
        plans, problems = _searches(group, with_data=scenario is not None)
        parallel = room(next(iter(plans.values())).record)[0]
        able = {name: plan for name, plan in plans.items() if name not in problems}
        seeds = {row.name: 1 if model_class(row.name).closed_form else len(group.seeds) for row in group.rows}
        for row in group.rows:
            texts = [row.title, model_class(row.name).status]
            if plan := able.get(row.name):
                texts += [str(plan.trials), str(seeds[row.name]), ", ".join(plan.space.varied_keys) or "nothing"]
                block.lines.append([*map(Cell, texts)])
            else:
                problem = Cell(f"cannot run: {problems[row.name]}", "cannot run")
                block.lines.append([*map(Cell, [*texts, "-", "-"]), problem])
        console.print(rich_table(block))
        total = sum(plan.trials for plan in able.values())
        text = f"\n{text_format.plural(total, 'trial')} of searches, {sum(seeds[name] for name in able)} of seeds"
        console.print(text + (f"; {describe_resources(next(iter(able.values())), parallel)}" if able else ""))
        sources = facts_table()
        for row in group.rows:
            if source := model_class(row.name).source:
                sources.add_row(row.title, Text(source))
        if sources.row_count:
            console.print()
            console.print(sources)


def _paper_notes(table: Table) -> list[str]:
    """Under which conditions the paper's numbers were measured."""
    paper, scenario = table.paper, table.scenario
    if paper is None:
        return []
    text = (
        f"{paper_heading(table)}: as printed in LLM-EMF's table of {paper.title}, by its authors, one run, "
        "candidates not stated there (999 where it repeats C2DSR's table)."
    )
    if not table.same_data:
        text += (
            f" That data has {paper.num_items[0]:,} + {paper.num_items[1]:,} items and {paper.num_train:,} training "
            f"sequences, this one {scenario.num_x:,} + {scenario.num_y:,} and {len(scenario.train):,}: the numbers do "
            "not stand beside each other."
        )
    own = [row.row.title for row in table.rows if row.name in OWN_PAPER & paper.rows.keys()]
    note = "the paper's column is from its own paper; LLM-EMF's tables leave it out."
    return [text, *(f"{name}: {note}" for name in own)]


KIND = Comparison()
