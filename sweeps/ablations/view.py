"""What an ablation says in the terminal: its rows, a line per row, the tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from llmemf import text_format
from sweeps.ablations.plan import AblationRecord
from sweeps.ablations.rows import GROUPS, Row
from sweeps.ablations.table import AblationTable, grouped, validation_text
from sweeps.comparison.state import EntryResult, GroupState
from sweeps.comparison.table_formats import number
from sweeps.comparison.tables import HEADINGS
from sweeps.comparison.view import STATE_STYLES, data_line, entry_line, facts_table, plain_table, print_places

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario


def print_start(
    record: AblationRecord,
    scenario: Scenario | None,
    rows: Mapping[str, Row],
    state: GroupState | None,
    console: Console,
) -> None:
    """What is taken apart, on what, at which configuration, and where it goes."""
    facts = facts_table()
    facts.add_row("ablation", Text(record.name, style="bold"))
    if state is not None and not state.is_new:
        done = sum(result.outcome == "done" for result in state.results.values())
        facts.add_row("goes on", f"{done} of {text_format.plural(len(record.rows), 'row')} done")
    if scenario is None:
        facts.add_row("data", f"{record.scenario} (made when the ablation starts)")
    else:
        facts.add_row("data", data_line(scenario))
    if record.encoders is not None:
        named = {
            "text": record.encoders.text,
            "text with LLM text": record.encoders.llm,
            "image": record.encoders.image,
        }
        facts.add_row("features", ", ".join(f"{kind} by {name}" for kind, name in named.items() if name) or "none")
    if record.full:
        facts.add_row("full model", f"row {record.full}: {rows[record.full].title!r}")
    facts.add_row("rows", f"{record.how}; {text_format.plural(len(record.seeds), 'seed')}, each tested once")
    facts.add_row("shared", text_format.settings(record.fixed))
    if record.assignments:
        facts.add_row("set", " ".join(record.assignments))
    facts.add_row("writes to", str(record.folder))
    console.print(facts)
    console.print()


def print_rows(record: AblationRecord, rows: Mapping[str, Row], console: Console) -> None:
    """Every row with what it changes, or why it cannot run.

    Args:
        rows: empty where the data that tells it is not there yet.
    """
    if not rows:
        console.print(f"rows  {', '.join(record.rows)}")
        console.print("Which of them can run is known when the data is there.", style="dim")
        return
    made = plain_table()
    made.add_column("row", no_wrap=True)
    made.add_column("", overflow="fold")
    made.add_column("what it changes", overflow="fold")
    for group, title in GROUPS.items():
        own = [rows[name] for name in record.rows if rows[name].group == group]
        if own:
            made.add_row(Text(title, style="dim italic"), "", "")
        for row in own:
            title = row.title + (" (full model)" if row.name == record.full else "")
            cell: Any = text_format.settings(row.shown)
            made.add_row(row.name, title, Text(f"cannot run: {row.problem}", style="yellow") if row.problem else cell)
    console.print(made)
    able = sum(not rows[name].problem for name in record.rows)
    trials = f"{able * record.tune:,} trials of searches at most, " if record.tune else ""
    console.print(
        f"\n{able} of {text_format.plural(len(record.rows), 'row')} can run: {trials}{able * len(record.seeds)} of seeds"
    )


def print_row(
    row: Row,
    result: EntryResult,
    scenario: Scenario,
    place: int,
    record: AblationRecord,
    console: Console,
    earlier: bool,
) -> None:
    """One line of a row that is through."""
    how = text_format.plural(len(result.seeds), "seed")
    line = entry_line(row.name, record.rows, place, result, scenario, how, earlier=earlier)
    console.print(line, soft_wrap=not console.is_terminal)


def print_end(
    table: AblationTable, record: AblationRecord, state: GroupState, undelivered: str, page: str, console: Console
) -> None:
    """The tables, what to know about them, and where everything lies."""
    console.print()
    for domain in table.domains:
        console.print(domain_table(table, domain, console))
        console.print()
    for note in table.notes:
        console.print(note, style="dim", highlight=False)
    console.print()
    files = "ablation.md, ablation.csv, ablation.tex"
    again = any(line.state == "failed" for line in table.lines)
    print_places("ablation", record, state, files, undelivered, page, console, again=again)


def domain_table(table: AblationTable, domain: str, console: Console) -> Table:
    """The rows in one domain: fewer columns where the terminal is narrow."""
    for columns in (
        [(ranking, metric) for ranking in ("test", "test_full") for metric in HEADINGS],
        [*(("test", metric) for metric in HEADINGS), ("test_full", "mrr")],
        [("test", "mrr"), ("test", "ndcg_10")],
    ):
        made = _domain_table(table, domain, columns)
        if made.__rich_measure__(console, console.options.update(max_width=1000)).maximum <= console.width:
            break
    return made


def _domain_table(table: AblationTable, domain: str, columns: list[tuple[str, str]]) -> Table:
    made = plain_table()
    made.add_column(f"\n{domain}", no_wrap=True)
    made.add_column("\nvalidation", justify="right", no_wrap=True)
    for index, (ranking, metric) in enumerate(columns):
        first = index == 0 or columns[index - 1][0] != ranking
        over = {"test": "sampled", "test_full": "all items"}[ranking] if first else ""
        made.add_column(f"{over}\n{HEADINGS[metric]}", justify="right", no_wrap=True)
    for heading in ("MRR\ndifference", "p\ncases", "p\nseeds"):
        made.add_column(heading, justify="right", no_wrap=True)
    if domain == table.paper_domain:
        made.add_column("paper\nMRR" if table.same_data else "paper MRR\n(other data)", justify="right", style="dim")
    main = ("test", domain, "mrr")
    for title, lines in grouped(table):
        made.add_row(Text(title, style="dim italic"))
        for line in lines:
            name = line.row.title.partition(" (")[0] + (" (full)" if line.is_full else "")
            cells: list[Any] = [Text(f"  {name}", style="bold" if line.is_full else "")]
            cells.append(
                Text(line.state, style=STATE_STYLES[line.state]) if line.state else validation_text(line.validation)
            )
            cells += [number(line.cells.get((ranking, domain, metric))) for ranking, metric in columns]
            paper = table.paper_value(line, domain)
            made.add_row(*cells, *line.against(main), *([paper] if paper else []))
    return made
