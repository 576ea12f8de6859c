"""What a sweep says at its start and at its end."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence

from rich.console import Console
from rich.panel import Panel
from rich.text import Text

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.features.matrix import is_offline
from llmemf.scenarios.scenario import Scenario
from sweeps.core import result_tables
from sweeps.core.console import facts_table
from sweeps.core.plan import Plan
from sweeps.core.settings import SAMPLE
from sweeps.core.sweep_data import SweepData
from sweeps.search.space import Block
from sweeps.search.stopping import stopping
from sweeps.state.confirmation import confirmed, sentence_of
from sweeps.state.references import References
from sweeps.state.sweep_record import SweepRecord
from sweeps.state.sweep_state import SweepState
from sweeps.state.trial_records import TrialRecord, best_of


def print_fallback(requested: str, used: str, data_root: str, console: Console, allowed: bool) -> None:
    """Say loudly that the sample is used in place of data that is not there.

    Args:
        requested: the scenario that the user asked for.
        used: the scenario that is used.
        data_root: the folder in which its data was expected.
        allowed: whether that is meant (`--allow-sample`), or can do no harm; else somebody must be there to read it.

    Raises:
        InputError: it is not, and nobody sits at a terminal.
    """
    if used != SAMPLE or requested == SAMPLE:
        return
    bring = command_line("data", "import", "windows", "FOLDER", "--name", requested, "--domains", "X,Y")
    if not allowed and not any(stream is not None and stream.isatty() for stream in (sys.stdin, sys.stdout)):
        raise InputError(
            f"there is no data for {requested} in {data_root}: bring it (`{bring}`), or give --allow-sample to run on the "
            "embedded sample instead, as it is done at a terminal"
        )
    text = Text.assemble(
        (f"There is no data for {requested} in {data_root}.\n", "bold"),
        "This sweep runs on the embedded ",
        ("sample", "bold"),
        " instead: generated users and items, small settings. It is called sample in all that it writes, and its "
        f"numbers say nothing about {requested}.\n\nTo bring the real data:\n",
        (f"  {bring}\n  {command_line('features', 'offline', requested)}", "cyan"),
    )
    console.print(
        Panel(text, border_style="yellow", title="embedded sample", title_align="left", width=min(console.width, 100))
    )


def print_start(
    plan: Plan,
    data: SweepData | None,
    parallel: int,
    console: Console,
    state: SweepState | None = None,
    outside: int = 0,
) -> None:
    """What is swept, on what, with what, and where it goes.

    Args:
        state: of a sweep that runs; None where it is only shown.
        outside: how many of its trials lie outside of its space of today.
    """
    record = plan.record
    facts = facts_table()
    if plan.extended:
        facts.add_row("sweep", f"{record.name} (extended)")
    if plan.resumed and state:
        facts.add_row("continues", describe_progress(state, plan.trials))
    facts.add_row("data", describe_data(plan, data))
    if data is not None:
        features = ", ".join(f"{kind} by {matrix.encoder}" for kind, matrix in data.features.items())
        facts.add_row("features", features or "none (ids only)")
    objective = f", {' and '.join(plan.objectives)} softmax in training" if plan.objectives else ""
    facts.add_row("model", f"{record.model}{objective}")
    facts.add_row("trials", describe_trials(plan))
    if plan.most_repeats:
        facts.add_row("then", describe_confirmation(plan))
    for index, block in enumerate([block for block in plan.space.blocks if block.kind != "fixed"]):
        facts.add_row("space" if index == 0 else "", describe_space(block))
    if plan.space.dropped:
        reasons = ", ".join(plan.space.dropped_by)
        facts.add_row("", f"{plan.space.dropped:,} of {plan.space.full_size:,} grid points dropped ({reasons})")
    fixed = {key: value for key, value in plan.fixed.items() if key not in ("model", "seed", "epochs")}
    if fixed:
        facts.add_row("fixed", text_format.settings(fixed))
    facts.add_row("resources", describe_resources(plan, parallel) if parallel else "none: no trial is left to run")
    if state is None:
        facts.add_row("writes to", str(record.folder))
    if outside:
        facts.add_row(
            "note", f"{text_format.plural(outside, 'trial')} outside of this space: ranked, but not learned from"
        )
    for notice in plan.notices:
        facts.add_row("note", notice)
    console.print(facts)
    console.print()


def describe_progress(state: SweepState, trials: int) -> str:
    """What a continued sweep has, and what is left."""
    records, repeats = list(state.records.values()), len(state.records) - len(state.searched)
    ended = [record for record in state.searched if record.ended]
    left = [record for record in records if not record.ended]
    parts = [f"{len(ended)} of {text_format.plural(trials, 'trial')} done"]
    if left:
        names = ", ".join(f"{record.name} (after epoch {record.epoch})" for record in left[:5])
        parts.append(f"{names}{' ...' if len(left) > 5 else ''} to be finished")
    if trials > len(state.searched):
        parts.append(f"{trials - len(state.searched)} not started")
    if repeats:
        parts.append(f"{repeats} again with new seeds")
    return ", ".join(parts)


def describe_data(plan: Plan, data: SweepData | None) -> str:
    """The scenario, for the plan's table."""
    return describe_scenario(data.scenario) if data else f"{plan.record.scenario} (made when the sweep starts)"


def describe_scenario(scenario: Scenario) -> str:
    """A scenario with its counts, in one line."""
    sizes = f"{scenario.num_x:,} {scenario.domains[0]} + {scenario.num_y:,} {scenario.domains[1]} items"
    return f"{scenario.name} ({scenario.fingerprint[:8]}), {sizes}, {len(scenario.train):,} sequences"


def describe_trials(plan: Plan) -> str:
    """How many trials there are and where they come from, for the plan's table."""
    record, named = plan.record, len(plan.record.points)
    first = len(plan.points) - named
    count = text_format.plural(plan.trials, "trial")
    if plan.resumed:
        how = f"{count} in all, {record.search}"
    elif named:
        how = f"{count}: {text_format.plural(named, 'given point')}, {first} of the grid, {plan.trials - named - first} proposed"
    elif first == plan.trials:
        how = f"{count} from a grid of {plan.space.size:,} points"
    elif first:
        how = f"{count}: {first} grid points of {plan.space.size:,}, then {plan.trials - first} refined by Optuna"
    else:
        by = {"random": "drawn at random", "auto": "proposed by a model of settings and epochs"}
        how = f"{count} {by.get(record.search, 'drawn by Optuna')}"
    ends = "none is stopped early"
    if plan.rungs:
        ends = f"ASHA stops the laggards at epoch{'s' * (len(plan.rungs) > 1)} {', '.join(map(str, plan.rungs))}"
    return f"{how}; at most {text_format.plural(plan.epochs, 'epoch')}, {ends}"


def describe_confirmation(plan: Plan) -> str:
    """How the best trials are confirmed, for the plan's table."""
    return (
        f"the best {plan.candidates} run again with new seeds, in at most {100 * plan.record.confirm:g} % of these epochs "
        f"({text_format.plural(plan.most_repeats, 'whole trial')}); the best mean wins"
    )


def describe_resources(plan: Plan, parallel: int) -> str:
    """What trials get and how many run at once, for the plan's table."""
    record = plan.record
    each = f"{record.cpus_per_trial:g} CPU" + (f" and {record.gpus_per_trial:g} GPU" if record.gpus_per_trial else "")
    where = f" on the cluster at {record.ray_address}" if record.ray_address else ""
    return f"{parallel} at once, {each} each{where}"


def caveats(plan: Plan, data: SweepData, best: TrialRecord | None = None, evaluations: int = 0) -> list[str]:
    """What a reader of the numbers must know.

    Args:
        evaluations: how often this sweep evaluated a trial on the test split.
    """
    encoders = {kind: matrix.encoder for kind, matrix in data.features.items()}
    notes = caveats_of(data.scenario.name, plan.objectives, encoders, evaluations)
    return [*reference_notes(plan.record, best, plan.configs[0].monitor), *notes]


def reference_notes(record: SweepRecord, best: TrialRecord | None, monitor: str) -> list[str]:
    """What chance and simple systems reach in a sweep's objective, and whether its best trial is above them."""
    references = References.load(record.folder)
    if best is None or best.objective is None or monitor != "val_mrr" or not references.line:
        return []
    warning = references.warning(best.objective, record.model)
    return [f"Mean validation MRR {references.line}.", *([warning] if warning else [])]


def caveats_of(scenario: str, objectives: list[str], encoders: dict[str, str], evaluations: int) -> list[str]:
    """What a reader of numbers must know that were made from a scenario by features of these encoders (by kind)."""
    notes = []
    if evaluations > 1:
        notes.append(f"The sweep was tested {evaluations} times, once for each change of the best trial.")
    if scenario == "sample":
        notes.append("Numbers of a generated sample: they say nothing about the paper's data.")
    if "sampled" in objectives:
        notes.append("Trained with the sampled objective, an estimate of the full softmax.")
    offline = [kind for kind, encoder in encoders.items() if is_offline(encoder)]
    if offline:
        notes.append(f"Features by offline encoders ({', '.join(offline)}), not by CLIP.")
    return notes


def print_end(
    plan: Plan,
    data: SweepData,
    records: list[TrialRecord],
    test: dict[str, float],
    outcome: str,
    reason: str,
    seconds: float,
    tracking: str,
    page: str,
    console: Console,
    evaluations: int = 0,
) -> None:
    """Leaderboard, test metrics, and where everything lies."""
    record = plan.record
    count = {
        name: sum(item.outcome == name for item in records if not item.repeats)
        for name in ("completed", "pruned", "failed", "interrupted")
    }
    count["again with new seeds"] = sum(bool(item.repeats) for item in records)
    parts = ", ".join(f"{number} {name}" for name, number in count.items() if number)
    style = {"completed": "green", "incomplete": "yellow", "failed": "red", "interrupted": "magenta"}[outcome]
    said = f"{outcome}: {reason}" if reason and reason != "interrupted" else outcome
    took = f" in {text_format.duration(seconds)}"
    console.print(
        Text.assemble(f"sweep {record.name} ", (said, f"bold {style}"), took, f": {parts or 'no trial had started'}")
    )
    console.print()
    if best_of(records):
        domains = data.scenario.domains
        console.print(result_tables.table(records, domains, console.width))
        searched = sum(not item.repeats for item in records)
        if searched > result_tables.TOP:
            console.print(f"the best {result_tables.TOP} of {searched}; all in leaderboard.csv", style="dim")
        sure = sentence_of(confirmed(records))
        means = "; mean: over so many seeds" if sure else ""
        console.print(f"epoch: best/run; objective: {describe_objective(plan, data)}{means}", style="dim")
        if sure:
            console.print(sure, style="bold", highlight=False)
        if outcome != "interrupted" and (found := stopping(records, plan.rungs, record.reduction_factor)):
            console.print(found.sentence, style="dim", highlight=False)
        console.print()
        if test:
            console.print(result_tables.test_table(test, domains))
        for note in caveats(plan, data, best_of(records), evaluations):
            console.print(note, style="yellow", highlight=False)
        console.print()
    lines: list[tuple[str, str | Text]] = []
    if (record.folder / "best.yaml").exists():
        lines.append(("best", str(record.folder / "best.yaml")))
    lines.append(("all trials", str(record.folder / "leaderboard.csv")))
    failed = failed_trials(records)
    if failed:
        lines.append(("failed", f"{failed}; full traces in {record.folder / 'errors'}"))
    if tracking:
        lines.append(("note", tracking))
    commands = places(record, page)
    if not best_of(records):
        del commands["report"]
    if outcome == "interrupted":
        commands["resume"] = plan.resume_command()
    if failed:
        commands["run again"] = plan.resume_command("--retry-failed")
    print_lines(console, lines, commands)


def places(record: SweepRecord, page: str = "") -> dict[str, str]:
    """Where a sweep can be looked at, also while it runs: the command for its report, and its runs in MLflow."""
    report = command_line("report", record.name, storage=record.storage)
    return {"report": report, "browse": browse(record.tracking_uri, record.storage, page)}


def browse(tracking_uri: str, storage: str, page: str = "") -> str:
    """The page of a tracking server, or the command that serves the pages of a database.

    Args:
        page: below the address of the server.
    """
    return tracking_uri.rstrip("/") + page if tracking_uri.startswith("http") else command_line("ui", storage=storage)


def print_places(record: SweepRecord, console: Console) -> None:
    """The first lines of a sweep: its name, and where it can be looked at from now on."""
    lines: list[tuple[str, str | Text]] = [
        ("sweep", Text(record.name, style="bold")),
        ("folder", f"{record.folder} (report.html appears there)"),
    ]
    live = command_line("live", record.name, storage=record.storage)
    print_lines(console, lines, {"live": live, **places(record)})


def print_lines(console: Console, lines: Sequence[tuple[str, str | Text]], commands: Mapping[str, str]) -> None:
    """Labelled lines with one left edge; none is broken, so that paths and commands can be copied.

    Args:
        lines: label and text.
        commands: the lines that follow them: what to type, or to open.
    """
    shown = [*lines, *((label, Text(command, style="cyan")) for label, command in commands.items())]
    width = max(len(label) for label, _ in shown)
    for label, text in shown:
        console.print(Text.assemble((f"{label:<{width}}  ", "dim"), text), soft_wrap=True)


def failed_trials(records: Sequence[TrialRecord]) -> str:
    """`2 of 4 trials failed (t01, t03)`; "" if none did."""
    names = [item.name for item in records if item.outcome == "failed"]
    if not names:
        return ""
    shown = ", ".join(names[:5]) + (" ..." if len(names) > 5 else "")
    return f"{len(names)} of {text_format.plural(len(records), 'trial')} failed ({shown})"


def describe_objective(plan: Plan, data: SweepData) -> str:
    """What the trials are ranked by."""
    if plan.configs[0].monitor == "val_loss":
        return "negative validation loss"
    scenario = data.scenario
    present = [scenario.domains[index] for index in sorted(set(scenario.domain_of(scenario.valid.targets).tolist()))]
    if len(present) == 1:
        return f"validation MRR of {present[0]}, which all validation cases are of"
    return "mean validation MRR of both domains"


def describe_space(block: Block) -> str:
    """A block of the space in a few words, for the start of a sweep."""
    keys = ", ".join(block.keys)
    if not block.points:
        scale = " (log)" if block.log else ""
        return f"{keys}: {text_format.number(block.low)} to {text_format.number(block.high)}{scale}"
    if len(block.keys) > 1:
        return f"{keys}: {len(block.points)} combinations"
    return f"{keys}: " + ", ".join(text_format.number(point[0]) for point in block.points)
