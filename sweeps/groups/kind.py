"""What is special about groups of one kind, as one small class; everything else is common to all kinds.

The table of a group is one block per domain with the test metrics of all rows. What a kind shows beside them is a list of
fields, each of which says how it looks on the page, in LaTeX and in the terminal.
"""

from __future__ import annotations

import datetime
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from rich.console import Console
from rich.text import Text

from llmemf import text_format
from llmemf.scenarios.scenario import Scenario
from sweeps.core.descriptions import describe_scenario
from sweeps.groups import terminal
from sweeps.groups.columns import (
    ALL_METRICS,
    CSV_CELLS,
    SAMPLED,
    SAMPLED_AND_MRR,
    Field,
    csv_lines,
    metric_fields,
    paper_fields,
    section_of,
    settings_of,
)
from sweeps.groups.group import Group
from sweeps.groups.paper_numbers import PaperTable
from sweeps.groups.plan import GroupOptions
from sweeps.groups.render import (
    TERMINAL,
    Block,
    Cell,
    Column,
    csv_text,
    difference,
    latex,
    markdown,
    number,
    p_value,
    rich_table,
)
from sweeps.groups.significance import Test
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.reporting.tables import tables_page


class Kind(ABC):
    """A kind of group; what a subclass leaves as it is holds for rows that are all tested against the best other one.

    Attributes:
        name: as in `Group.kind`.
        papers: the paper's tables whose numbers stand beside the rows.
        sections: part of the table -> its heading.
        csv_columns: of the CSV file.
        variants: test metrics and gap between columns for the terminal, the widest first.
        line_name: what lines of progress call a row.
        rows_title, rows_remark: of the block below the domains, which says how each row came about.
        rows_in_terminal: whether the terminal shows that block.
    """

    name: str
    papers: Sequence[PaperTable] = ()
    sections: Mapping[str, str] = {}
    csv_columns: Sequence[str] = (
        "row", "title", "outcome", *CSV_CELLS, "difference", "low", "high", "p", "p_holm", "against", "validation",
        "validation_spread",
        "settings", "reason",
    )  # fmt: skip
    variants: Sequence[tuple[Sequence[tuple[str, str]], int]] = (
        (ALL_METRICS, 2), (SAMPLED_AND_MRR, 2), (SAMPLED_AND_MRR, 1), (SAMPLED, 1),
    )  # fmt: skip
    line_name: Literal["name", "title"] = "name"
    rows_title = "Rows"
    rows_remark = ""
    rows_in_terminal = True

    @abstractmethod
    def plan(self, options: GroupOptions, now: datetime.datetime) -> Group:
        """A new group from the command line.

        Raises:
            InputError: any mistake in options or scenario file, in one sentence.
        """

    def extend(self, group: Group, models: list[str] | None) -> None:
        """Add to a planned or stored group what a command line names (`--models`), and check that it can run.

        Raises:
            InputError: an unknown name, or no row can run.
        """
        return

    def finalize(self, group: Group, scenario: Scenario) -> None:
        """Fix in the group what follows from the data, before anything is shown.

        Raises:
            InputError: no row can run.
        """
        return

    def facts(self, group: Group, scenario: Scenario | None) -> list[tuple[str, str]]:
        """What the start says of it, as names and texts; the scenario is None where it is not made yet."""
        data = f"{group.scenario} (made when the {group.kind} starts)"
        if scenario is not None:
            data = f"{describe_scenario(scenario)}, {len(scenario.test):,} test cases"
        shared = [("shared", text_format.settings(group.fixed))] if group.fixed else []
        given = [("set", " ".join(group.assignments))] if group.assignments else []
        return [("data", data), *self.own_facts(group), *shared, *given]

    @abstractmethod
    def own_facts(self, group: Group) -> list[tuple[str, str]]:
        """What its start says beside the data and the settings that all rows share."""

    def params(self, group: Group) -> dict[str, object]:
        """Parameters of its run in MLflow beside the shared settings, rows and seeds."""
        return {"configuration": group.origin}

    def beside_group(self, group: Group) -> Path | None:
        """A folder that gets the tables too, where it exists."""
        return None

    @abstractmethod
    def annotate(self, table: Table) -> None:
        """Put headings, warnings and notes into a new table."""

    def print_rows(self, group: Group, scenario: Scenario | None, console: Console) -> None:
        """What a dry run shows below the facts."""
        terminal.print_rows(group, console, self.sections)

    def line(self, table: Table, row: TableRow, place: int, earlier: bool) -> Text:
        """A finished row in a line: its numbers and how it came about, or why there are none.

        Args:
            earlier: whether an earlier driver finished it.
        """
        names = {other.name: getattr(other, self.line_name) for other in table.group.rows}
        total, width = len(names), max(map(len, names.values()))
        line = Text(f"{place:>{len(str(total))}}/{total}  ", style="dim")
        line.append(f"{names[row.name]:<{width}}  ", style="bold not dim")
        if row.result.outcome != "done":
            line.append(f"{row.state}: ", style=f"{TERMINAL[row.state]} not dim")
            return line.append(row.result.reason, style="not dim")
        line.append(self.found(table, row), style="not dim")
        return line.append(f"   {self.how(row)}" + (", earlier" if earlier else ""))

    def found(self, table: Table, row: TableRow) -> str:
        """The numbers of a finished row, for its line."""
        cells = {domain: row.cells.get(f"test/{domain}/mrr") for domain in table.domains}
        return ", ".join(f"{domain} MRR {number(cell)}" for domain, cell in cells.items() if cell)

    def how(self, row: TableRow) -> str:
        """How a finished row came about, for its line."""
        return text_format.plural(len(row.result.seeds), "seed")

    def subtitle(self, table: Table) -> str:
        """What stands below the heading of the page."""
        return f"Scenario `{table.scenario.name}`."

    def caption(self, table: Table) -> str:
        """What stands above the table in LaTeX, "" of a kind that writes none."""
        return ""

    def label(self, table: Table, row: TableRow) -> str:
        """A row as the terminal writes it."""
        return row.heading

    def fields(self, table: Table, domain: str) -> list[Field]:
        """All columns of the table in one domain."""
        return [*metric_fields(table, domain), *self.beside(table, domain)]

    def beside(self, table: Table, domain: str) -> list[Field]:
        """The paper's numbers, where it has any, and the test against the best other row or the reference."""

        def test(row: TableRow) -> Test | None:
            return row.case_tests.get(f"test/{domain}/mrr")

        def against(row: TableRow) -> Cell:
            found = test(row)
            return Cell(table.row(found.against).row.title if found else "-")

        p = Field(lambda row: Cell(p_value(test(row))), "p", "$p$", Column("\np"))
        interval = Field(lambda row: Cell(difference(test(row))), "difference [95 %]")
        return [*paper_fields(table, domain), p, Field(against, "against"), interval]

    def about(self, row: TableRow, *, narrow: bool = False) -> dict[str, str]:
        """How a row came about, a text per column: its objective on validation and its settings."""
        seeds, settings = str(len(row.result.seeds) or "-"), settings_of(row) or "-"
        return {"validation": number(row.cells.get(OBJECTIVE), 4), "seeds": seeds, "settings": settings}

    def last_block(self, table: Table, width: int | None = None) -> Block:
        """Below the domains: how each row came about; `width` is None for the page."""
        narrow = width is not None and width < 140
        first = Column(self.rows_title.lower() if width else table.group.noun, right=False)
        block = Block(self.rows_title, [first], remark=self.rows_remark)
        for row in table.rows:
            texts = self.about(row, narrow=narrow)
            block.lines.append([Cell(row.row.title if width else row.heading), *map(Cell, texts.values())])
        for name in texts:
            is_long = name in ("settings", "chosen")
            block.columns.append(Column(name.replace(" ", "\n") if narrow else name, right=not is_long, wrap=is_long))
        return block

    def csv_facts(self, table: Table, row: TableRow) -> dict[str, object]:
        """What the lines of a row in the CSV file have in common."""
        validation = row.cells.get(OBJECTIVE)
        return {
            "row": row.name,
            "title": row.row.title,
            "outcome": row.result.outcome or "waiting",
            "validation": validation and validation.mean,
            "validation_spread": validation and validation.deviation,
            "settings": settings_of(row),
            "reason": row.result.reason,
        }

    def csv_lines(self, table: Table) -> list[dict[str, object]]:
        """The lines of the CSV file."""
        return [line for row in table.rows for line in csv_lines(table, row, self.csv_facts(table, row))]

    def page(self, table: Table) -> list[Block]:
        """The tables of the written pages."""
        return [*(self.block(table, domain, "page") for domain in table.domains), self.last_block(table)]

    def files(self, table: Table) -> dict[str, str]:
        """The tables that are written into the group's folder, by file name; Markdown comes first."""
        group, kind, lead = table.group, table.group.kind.capitalize(), self.subtitle(table)
        notes, warnings, page = table.notes, table.warnings, self.page(table)
        sections = [section_of(table, block) for block in page]
        found = {
            "md": markdown(f"{kind} {group.name}", lead, page, notes, warnings),
            "html": tables_page(kind, group.name, lead.replace("`", ""), sections, notes, warnings),
            "csv": csv_text(self.csv_columns, self.csv_lines(table)),
        }
        if caption := self.caption(table):
            fields = [field for field in self.fields(table, table.domains[0]) if field.latex]
            over = ["", *(field.over for field in fields if field.over is not None)]
            names = [group.noun.capitalize(), *(field.latex for field in fields)]
            head = [" & ".join(over).rstrip(), " & ".join(names)]
            blocks = [self.block(table, domain, "latex") for domain in table.domains]
            found["tex"] = latex(caption, head, blocks, notes)
        return {f"{group.kind}.{ending}": text for ending, text in found.items()}

    def blocks(self, table: Table, console: Console) -> list[Block]:
        """The tables that are printed at the end."""
        blocks = [self.terminal_block(table, domain, console) for domain in table.domains]
        return [*blocks, self.last_block(table, console.width)] if self.rows_in_terminal else blocks

    def terminal_block(self, table: Table, domain: str, console: Console) -> Block:
        """The rows in one domain with as many columns as the terminal is wide enough for."""
        wide = console.options.update(max_width=1000)
        for metrics, gap in self.variants:
            block = self.block(table, domain, "terminal", metrics, gap)
            if rich_table(block).__rich_measure__(console, wide).maximum <= console.width:
                break
        return block

    def block(
        self,
        table: Table,
        domain: str,
        medium: Literal["page", "latex", "terminal"],
        metrics: Sequence[tuple[str, str]] = ALL_METRICS,
        gap: int = 2,
    ) -> Block:
        """The rows in one domain: a line each, headings of sections between them."""
        fields = [f for f in self.fields(table, domain) if getattr(f, medium) and f.metric in (None, *metrics)]
        if medium == "terminal":
            columns = [Column(f"\n{domain}", right=False), *(field.terminal for field in fields if field.terminal)]
        else:
            columns = [Column(table.group.noun), *(Column(getattr(field, medium)) for field in fields)]
        block, section = Block(domain, columns, gap=gap, chart=f"test/{domain}/mrr"), ""
        for row in table.rows:
            if row.row.section != section:
                section = row.row.section
                block.lines.append([Cell(self.sections[section], "section")])
            cells = [field.cell(row) for field in fields]
            if medium == "terminal":
                label = self.label(table, row)
                label = f"  {label}" if self.sections else label.replace(" ", "\n") if gap == 1 else label
                name = Cell(label, "winner" if row.name == table.group.reference else "")
                cells[0] = Cell(row.state, row.state) if row.state else cells[0]
            else:
                name = Cell(row.heading + (f": {row.state}" if row.state else ""))
            block.lines.append([name, *cells])
        return block
