"""What a comparison says in the terminal: its plan, a line per system, the tables."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.comparison.paper_numbers import PAPER_METRICS, shown_name
from sweeps.comparison.plan import ComparisonRecord, plan_search
from sweeps.comparison.record import GroupRecord
from sweeps.comparison.state import EntryResult, GroupState
from sweeps.comparison.table_formats import COST_HEADINGS, costs, count, number, p_value
from sweeps.comparison.tables import HEADINGS, Cell, ComparisonTable, Row
from sweeps.core.plan import Plan
from sweeps.core.summary import describe_resources, print_command

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

SHORT = {"mrr": "MRR", "ndcg_5": "N@5", "ndcg_10": "N@10"}
STYLES = {1: "bold", 2: "underline"}
STATE_STYLES = {"failed": "red", "cannot run": "yellow", "not run yet": "dim"}


def print_start(
    record: ComparisonRecord, scenario: Scenario | None, state: GroupState | None, console: Console
) -> None:
    """What is compared, on what, with which budget, and where it goes."""
    facts = facts_table()
    facts.add_row("comparison", Text(record.name, style="bold"))
    if state is not None and not state.is_new:
        done = sum(result.outcome == "done" for result in state.results.values())
        facts.add_row("goes on", f"{done} of {text_format.plural(len(record.models), 'system')} done")
    if scenario is None:
        facts.add_row("data", f"{record.scenario} (made when the comparison starts)")
    else:
        facts.add_row("data", data_line(scenario))
    facts.add_row("systems", f"{len(record.models)}: {', '.join(map(shown_name, record.models))}")
    stopping = "ASHA stops the laggards" if record.scheduler == "asha" else "none is stopped early"
    budget = f"at most {record.trials_per_model} trials ({record.search}, {stopping}) of at most "
    seeds = f"then {text_format.plural(len(record.seeds), 'seed')} of the chosen configuration, each tested once"
    facts.add_row("each", f"{budget}{text_format.plural(record.fixed['epochs'], 'epoch')}, {seeds}")
    facts.add_row("common", text_format.settings(record.fixed))
    if record.assignments:
        facts.add_row("set", " ".join(record.assignments))
    facts.add_row("writes to", str(record.folder))
    console.print(facts)
    console.print()


def print_system(
    result: EntryResult,
    scenario: Scenario,
    place: int,
    record: ComparisonRecord,
    console: Console,
    *,
    earlier: bool = False,
) -> None:
    """One line of a system that is through."""
    how = ""
    if result.outcome == "done":
        facts, seeds = costs(Row(result)), text_format.plural(len(result.seeds), "seed")
        how = f"{facts['trials']} trials, {seeds}, {facts['training']} training each, {count(result.parameters)} parameters"
    names = [shown_name(model) for model in record.models]
    line = entry_line(shown_name(result.name), names, place, result, scenario, how, earlier=earlier)
    console.print(line, soft_wrap=not console.is_terminal)


def entry_line(
    name: str, names: Collection[str], place: int, result: EntryResult, scenario: Scenario, how: str, *, earlier: bool
) -> Text:
    """An entry of a group that is through: its test MRR and how it came about, or why there is none."""
    total = len(names)
    line = Text(f"{place:>{len(str(total))}}/{total}  ", style="dim")
    line.append(f"{name:<{max(map(len, names))}}  ", style="bold not dim")
    if result.outcome != "done":
        state = "failed" if result.outcome == "failed" else "cannot run"
        line.append(f"{state}: ", style=f"{STATE_STYLES[state]} not dim")
        return line.append(result.reason, style="not dim")
    parts = [
        f"{domain} MRR {number(Cell.of(values))}"
        for domain in scenario.domains
        if (values := result.values(f"test/{domain}/mrr"))
    ]
    line.append(", ".join(parts), style="not dim")
    return line.append(f"   {how}" + (", earlier" if earlier else ""))


def print_end(
    table: ComparisonTable,
    record: ComparisonRecord,
    state: GroupState,
    tracking: str,
    page: str,
    console: Console,
) -> None:
    """The tables, what to know about them, and where everything lies."""
    console.print()
    for domain in table.domains:
        console.print(domain_table(table, domain, console))
        console.print()
    console.print(cost_table(table, console.width))
    console.print()
    for note in table.notes:
        console.print(note, style="dim", highlight=False)
    console.print()
    again = any(row.state for row in table.rows)
    print_places(
        "comparison",
        record,
        state,
        "comparison.md, comparison.csv, comparison.tex",
        tracking,
        page,
        console,
        again=again,
    )


def print_places(
    kind: str,
    record: GroupRecord,
    state: GroupState,
    files: str,
    undelivered: str,
    page: str,
    console: Console,
    *,
    again: bool,
) -> None:
    """How a group of sweeps ended, where its tables are, how to look at its runs, and how to repeat what failed."""
    facts = facts_table()
    style = "green" if record.status == "completed" else "red"
    took = f"in {text_format.duration(state.seconds)}"
    facts.add_row(kind, Text.assemble(record.name, " ", (record.status, f"bold {style}"), f" {took}"))
    facts.add_row("tables", f"{record.folder}/{files}")
    if undelivered:
        facts.add_row("note", undelivered)
    console.print(facts)
    if record.tracking_uri.startswith("http"):
        print_command(console, "browse", record.tracking_uri.rstrip("/") + page)
    else:
        print_command(console, "browse", command_line("ui", storage=record.storage))
    if again:
        print_command(console, "try again", record.resume_command())


def data_line(scenario: Scenario) -> str:
    """A scenario and its sizes, in one line."""
    sizes = f"{scenario.num_x:,} {scenario.domains[0]} + {scenario.num_y:,} {scenario.domains[1]} items"
    sequences = f"{len(scenario.train):,} sequences, {len(scenario.test):,} test cases"
    return f"{scenario.name} ({scenario.fingerprint[:8]}), {sizes}, {sequences}"


def domain_table(table: ComparisonTable, domain: str, console: Console) -> Table:
    """The systems in one domain: with all columns, or with fewer and closer ones where the terminal is narrow."""
    for full, narrow in ((list(PAPER_METRICS), False), (["mrr"], False), (["mrr"], True), ([], True)):
        made = _domain_table(table, domain, full, narrow)
        if made.__rich_measure__(console, console.options.update(max_width=1000)).maximum <= console.width:
            break
    return made


def _domain_table(table: ComparisonTable, domain: str, full: list[str], narrow: bool) -> Table:
    made = plain_table(gap=1 if narrow else 2)
    made.add_column(f"\n{domain}", no_wrap=True)
    columns = [("test", metric) for metric in PAPER_METRICS] + [("test_full", metric) for metric in full]
    for index, (ranking, metric) in enumerate(columns):
        first = index == 0 or columns[index - 1][0] != ranking
        over = {"test": "sampled", "test_full": "all items"}[ranking] if first else ""
        made.add_column(f"{over}\n{HEADINGS[metric]}", justify="right", no_wrap=True)
    if table.paper:
        words = ["paper", "", ""] if table.same_data else ["paper", "(other", "data)"]
        for word, metric in zip(words, PAPER_METRICS, strict=True):
            made.add_column(f"{word}\n{SHORT[metric]}", justify="right", no_wrap=True, style="dim")
    made.add_column("\np", justify="right", no_wrap=True)
    for row in table.rows:
        name = row.name.replace(" ", "\n") if narrow else row.name
        cells: list[Any] = [name]
        for ranking, metric in columns:
            place = (ranking, domain, metric)
            cells.append(Text(number(row.cells.get(place)), style=STYLES.get(table.place(row, place), "")))
        if row.state:
            cells[1] = Text(row.state, style=STATE_STYLES[row.state])
        if table.paper:
            values = [table.paper_value(row, domain, metric) for metric in PAPER_METRICS]
            cells += ["-" if value is None else f"{value:.2f}" for value in values]
        made.add_row(*cells, p_value(row.tests.get(("test", domain, "mrr"))))
    return made


def cost_table(table: ComparisonTable, width: int) -> Table:
    """How each system came to its numbers."""
    made = plain_table()
    made.add_column("costs", no_wrap=True)
    for key, heading in COST_HEADINGS.items():
        if key == "chosen":
            made.add_column(heading, overflow="fold")
        else:
            made.add_column(heading.replace(" ", "\n") if width < 140 else heading, justify="right", no_wrap=True)
    for row in table.rows:
        facts = costs(row)
        if width < 140:
            facts["trials"] = facts["trials"].replace(" stopped early)", " stopped)")
        made.add_row(shown_name(row.model), *facts.values())
    return made


def print_dry_run(
    record: ComparisonRecord, scenario: Scenario | None, problems: dict[str, str], parallel: int, console: Console
) -> None:
    """Every system with its space and trials, and why one cannot run; nothing is started or written.

    Args:
        scenario: None where it is made when the comparison starts.
        problems: system -> why it cannot run.
    """
    print_start(record, scenario, GroupState(record.folder, "model"), console)
    made = plain_table()
    for heading, right in (
        ("system", False),
        ("status", False),
        ("trials", True),
        ("seeds", True),
        ("searched", False),
    ):
        made.add_column(heading, justify="right" if right else "left", no_wrap=heading != "searched")
    plans: dict[str, Plan] = {}
    for model in record.models:
        model_type = model_class(model)
        if model not in problems:
            plans[model] = plan_search(record, model)
        plan = plans.get(model)
        seeds = 1 if model_type.closed_form else len(record.seeds)
        known = [str(plan.trials), str(seeds), ", ".join(plan.space.varied_keys) or "nothing"] if plan else ["-", "-"]
        cells: list[Any] = known if plan else [*known, Text(f"cannot run: {problems[model]}", style="yellow")]
        made.add_row(shown_name(model), model_type.status, *cells)
    console.print(made)
    total = sum(plan.trials for plan in plans.values())
    again = sum(1 if model_class(model).closed_form else len(record.seeds) for model in plans)
    text = f"\n{text_format.plural(total, 'trial')} of searches, {again} of seeds"
    if plans:
        text += f"; {describe_resources(next(iter(plans.values())), parallel)}"
    console.print(text)
    sources = [(shown_name(model), model_class(model).source) for model in record.models if model_class(model).source]
    if sources:
        facts = facts_table()
        for name, source in sources:
            facts.add_row(name, source)
        console.print()
        console.print(facts)
    console.print("\ndry run: nothing was started or written", style="dim")


def problems_of(record: ComparisonRecord, *, with_data: bool) -> dict[str, str]:
    """Systems that cannot run, each with its reason.

    Args:
        with_data: whether the data is there to be looked at.
    """
    from sweeps.core.sweep_data import load_data

    found = {}
    for model in record.models:
        try:
            plan = plan_search(record, model)
            if with_data:
                load_data(plan)
        except InputError as error:
            found[model] = str(error)
    return found


def facts_table() -> Table:
    facts = Table.grid(padding=(0, 2))
    facts.add_column(style="dim", no_wrap=True)
    facts.add_column(overflow="fold")
    return facts


def plain_table(gap: int = 2) -> Table:
    return Table(box=box.SIMPLE_HEAD, padding=(0, gap, 0, 0), pad_edge=False, show_edge=False, header_style="dim")
