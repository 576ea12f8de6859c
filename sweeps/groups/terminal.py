"""What a group says in the terminal at its start, after each row, and at its end, and what it would do."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.errors import InputError
from llmemf.models import model_class
from llmemf.scenarios.scenario import Scenario
from llmemf.text_format import plural
from sweeps.core.console import facts_table
from sweeps.core.descriptions import describe_scenario
from sweeps.core.summary import browse, print_lines
from sweeps.groups.blocks import blocks_of, count, duration
from sweeps.groups.cells import Block, Cell, digits, number
from sweeps.groups.group import BEST, Group
from sweeps.groups.notes import notes_of, warnings_of
from sweeps.groups.render import TERMINAL, files, for_terminal
from sweeps.groups.results import GroupState
from sweeps.groups.row_sweeps import first_plans
from sweeps.groups.table import OBJECTIVE, Table, TableRow


def print_start(group: Group, scenario: Scenario | None, state: GroupState, console: Console) -> None:
    """What is run, on what, with which budget, and where it goes; the scenario is None where it is not made yet."""
    shown = facts_table()
    shown.add_row(group.kind, Text(group.name, style="bold"))
    if not state.is_new:
        done = sum(result.outcome == "done" for result in state.results.values())
        shown.add_row("continues", f"{done} of {plural(len(group.rows), group.noun)} done")
    for name, text in _facts(group, scenario):
        shown.add_row(name, Text(text))
    shown.add_row("writes to", str(group.folder))
    for notice in group.notices:
        shown.add_row("note", Text(notice))
    console.print(shown)
    console.print()


def _facts(group: Group, scenario: Scenario | None) -> list[tuple[str, str]]:
    data = f"{group.scenario} (made when the {group.kind} starts)"
    if scenario is not None:
        data = f"{describe_scenario(scenario)}, {len(scenario.test):,} test cases"
    rows = ", ".join(row.title or row.name for row in group.rows)
    facts = [("data", data), (f"{group.noun}s", f"{len(group.rows)}: {rows}")]
    if features := group.facts.get("encoders"):
        named = {"text": features["text"], "text with LLM text": features["llm"], "image": features["image"]}
        facts.append(("features", ", ".join(f"{kind} by {name}" for kind, name in named.items() if name) or "none"))
    if group.reference != BEST:
        facts.append((group.reference_name, group.row(group.reference).title))
    if group.origin:
        facts.append(("configuration", group.origin))
    budget = ""
    if group.trials:
        stopping = "ASHA stops the laggards" if group.scheduler == "asha" else "none is stopped early"
        epochs = plural(group.fixed["epochs"], "epoch")
        budget = f"at most {group.trials} trials ({group.search}, {stopping}) of at most {epochs}, then "
    seeds = f"{budget}{plural(len(group.seeds), 'seed')} of the{' chosen' * bool(budget)} configuration"
    tested = "the best on validation is tested once" if group.test == "winner" else "each tested once"
    facts.append(("each", f"{seeds}, {tested}"))
    facts += [("shared", text_format.settings(group.fixed))] if group.fixed else []
    return facts + ([("set", " ".join(group.assignments))] if group.assignments else [])


def line_of(table: Table, row: TableRow, earlier: bool) -> Text:
    """A finished row in a line: its numbers and how it came about, or why there are none.

    Args:
        earlier: whether an earlier driver finished it.
    """
    group, result = table.group, row.result
    width = max(len(other.title or other.name) for other in group.rows)
    line = Text(f"{group.names.index(row.name) + 1:>{len(str(len(group.rows)))}}/{len(group.rows)}  ", style="dim")
    line.append(f"{row.title:<{width}}  ", style="bold not dim")
    if result.outcome != "done":
        line.append(f"{row.state}: ", style=f"{TERMINAL[row.state]} not dim")
        return line.append(result.reason, style="not dim")
    cells = {domain: row.cells.get(f"test/{domain}/mrr") for domain in table.domains}
    found = ", ".join(f"{domain} MRR {number(cell)}" for domain, cell in cells.items() if cell)
    if group.test == "winner":
        found = f"validation {number(row.cells.get(OBJECTIVE), 4)}"
    line.append(found, style="not dim")
    how = [f"{digits(row.row.objective)} in the sweep"] if row.row.objective is not None else []
    how += [f"{result.search['trials']} trials"] if result.search else []
    how.append(plural(len(row.values.get(OBJECTIVE) or result.seeds), "seed"))
    how += [f"{duration(result.mean('seconds'))} training each"] if result.seeds else []
    how += [f"{count(result.parameters)} parameters"] if result.parameters is not None else []
    how += [result.reason] if result.reason else []
    return line.append(f"   {', '.join(how)}" + (", earlier" if earlier else ""))


def print_end(table: Table, state: GroupState, notes: Sequence[str], page: str, console: Console) -> None:
    """The tables, what to know about them, where everything lies, and how to repeat what failed.

    Args:
        notes: what MLflow lacks, a line each.
        page: where MLflow's pages show the runs, below the address of its server.
    """
    group = table.group
    console.print()
    for block in blocks_of(table):
        console.print(for_terminal(block, console.width))
        console.print()
    for warning in warnings_of(table):
        console.print(f"warning: {warning}", style="bold yellow", highlight=False)
    for note in notes_of(table):
        console.print(note, style="dim", highlight=False)
    console.print()
    style = {"completed": "green", "incomplete": "yellow"}.get(group.status, "red")
    took = f"in {text_format.duration(state.seconds)}"
    suffixes = [suffix for name in files(table) if (suffix := Path(name).suffix) != ".html"]
    lines: list[tuple[str, str | Text]] = [
        (group.kind, Text.assemble(group.name, " ", (group.status, f"bold {style}"), f" {took}")),
        (
            "tables",
            f"{group.folder}/{group.kind}{', '.join(suffixes)}"
            + " (and beside the sweep's leaderboard)" * bool(group.source),
        ),
        ("report", f"{group.folder}/{group.kind}.html"),
        *(("note", note) for note in notes if note),
    ]
    commands = {"browse": browse(group.tracking_uri, group.storage, page)}
    if short := [name for name, result in state.results.items() if result.is_short]:
        said = f"{len(short)} of {plural(len(table.rows), 'row')}, wholly or in part: {', '.join(short)}"
        lines.append(("failed", said))
        commands["run again"] = f"{group.resume_command()} --retry-failed"
    elif any(row.state and not row.row.problem for row in table.rows):
        commands["run again"] = group.resume_command()
    print_lines(console, lines, commands)


def print_rows(group: Group, scenario: Scenario | None, console: Console) -> None:
    """Every row with what it changes or searches, or why it cannot run; without data, as far as that is known."""
    if not all(row.title for row in group.rows):
        console.print("Which rows can run is known when the data is there.", style="dim")
        return
    block, plans = Block("", []), first_plans(group, with_data=scenario is not None)
    section, trials, seeds, able = "", 0, 0, 0
    for row in group.rows:
        if row.section != section:
            section = row.section
            block.lines.append(section)
        model, plan = model_class(row.model), plans[row.name]
        title = row.title + (f" ({group.reference_name})" if row.name == group.reference else "")
        changes = text_format.settings(row.shown)
        texts = {
            "row": row.name,
            "": "" if title in (row.name, changes) else title,
            "status": "" if group.model else model.status,
            "in the sweep": digits(row.objective),
            "what it changes": changes,
            **dict.fromkeys(("trials", "seeds", "searched", "problem"), ""),
        }
        if isinstance(plan, InputError):
            texts["problem"] = f"cannot run: {plan}"
        else:
            own_seeds, own_trials = 1 if model.closed_form else len(group.seeds), plan.trials if group.trials else 0
            trials, seeds, able = trials + own_trials, seeds + own_seeds, able + 1
            texts |= {"trials": str(own_trials or ""), "seeds": str(own_seeds)}
            texts["searched"] = ", ".join(plan.space.varied_keys) if own_trials else ""
        style = "cannot run" if texts["problem"] else ""
        block.lines.append({key: Cell(text, style) for key, text in texts.items()})
    console.print(for_terminal(block, console.width))
    over_seeds = f"{plural(seeds, 'trial')} over seeds"
    work = f"{plural(trials, 'trial')} of searches, {over_seeds}" if trials else over_seeds
    console.print(f"\n{able} of {plural(len(group.rows), 'row')} can run: {work}")
