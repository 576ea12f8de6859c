"""Ablations: LLM-EMF with one thing taken away or changed per row, against the full model (the paper's table 4 and more).

The configuration is that of a sweep's best trial (fixed), or every row searches its own with one budget (tuned).
"""

from __future__ import annotations

import datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.errors import InputError, nearest
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.scenarios.scenario import Scenario
from sweeps.core.plan import Options, plan_sweep
from sweeps.core.settings import load_ablations, scenario_files
from sweeps.groups import layout
from sweeps.groups.ablation_rows import MODEL, SECTIONS, STANDARD, ablation_rows, full_row
from sweeps.groups.encoders import Encoders, find_encoders
from sweeps.groups.group import Group, Row
from sweeps.groups.kind import Kind
from sweeps.groups.paper_numbers import ABLATION, MOVIE_BOOK, PaperTable
from sweeps.groups.plan import (
    GroupOptions,
    best_configuration,
    checked_settings,
    named_sweep,
    seeds_after,
    shared_fields,
    used_scenario,
)
from sweeps.groups.render import Block, Cell, Column, csv_text, latex, markdown, number, p_value, tex
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.groups.terminal import data_fact, set_fact
from sweeps.state.sweep_record import RECORD, SweepRecord, is_of_group


def plan_ablation(options: GroupOptions, now: datetime.datetime) -> Group:
    """Plan a new ablation.

    Without `tune` and `from_sweep` the rows are fixed at the best configuration of the scenario's newest completed sweep.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.tune is not None and options.from_sweep is not None:
        raise InputError("--tune and --from exclude each other: every row is searched, or all are fixed")
    if options.from_sweep is None:
        used_scenario(options.scenario, options.root)
    source = _tuned(options, now) if options.tune is not None else _fixed(options)
    used, files = source["scenario"], scenario_files()
    own = load_ablations(files[used]) if used in files else {}
    own = {name: checked_settings(LLMEMFConfig, values, f"{used}: ablations: {name}") for name, values in own.items()}
    taken = sorted(set(own) & set(STANDARD))
    if taken:
        raise InputError(f"{used}: ablations: {taken[0]!r} is a row that every scenario has: take another name")
    known = [*STANDARD, *own]
    for name in options.rows or []:
        if name not in known:
            raise InputError(f"--rows: unknown row {name!r}: {nearest(name, known)}; --dry-run lists all")
    return Group(
        kind="ablation",
        **source,
        name=options.name or f"{used}-{now:%Y%m%d-%H%M%S}",
        rows=[Row(name=name, model=MODEL) for name in known if options.rows is None or name in options.rows],
        seeds=seeds_after(source["seed"], options.seeds),
        trials=options.tune,
        facts={"own": own},
        **shared_fields(options, now),
    )


def _tuned(options: GroupOptions, now: datetime.datetime) -> dict[str, Any]:
    """Fields of the group where every row is searched: what a sweep of the scenario would search."""
    plan = plan_sweep(
        Options(
            scenario=options.scenario,
            trials=options.tune,
            epochs=options.epochs,
            seed=options.seed,
            data_root=options.root,
            storage=options.storage,
            assignments=options.assignments,
        ),
        now=now,
    )
    record = plan.record
    if record.model != MODEL:
        raise InputError(f"{record.scenario}: an ablation is of {MODEL}, this file is for {record.model}")
    keys = ("requested", "scenario", "space", "constraints", "search", "scheduler", "grace_period", "reduction_factor")
    shared = {key: getattr(record, key) for key in (*keys, "seed")}
    return {**shared, "fixed": {**record.fixed, "epochs": plan.epochs}}


def _fixed(options: GroupOptions) -> dict[str, Any]:
    """Fields of the group where all rows have the configuration of a sweep's best trial."""
    storage = options.storage.resolve()
    if options.from_sweep is not None:
        record = named_sweep(options.from_sweep, storage, options.scenario)
    else:
        record = _newest_sweep(options, storage)
    if record.model != MODEL:
        raise InputError(f"--from {record.name}: an ablation is of {MODEL}, that sweep is of {record.model}")
    fixed, origin = best_configuration(record, options)
    return {
        "requested": options.scenario or record.requested,
        "scenario": record.scenario,
        "fixed": fixed,
        "origin": origin,
        "seed": record.seed if options.seed is None else options.seed,
    }


def _newest_sweep(options: GroupOptions, storage: Path) -> SweepRecord:
    """The newest completed sweep of the scenario that stands alone."""
    used = used_scenario(options.scenario, options.root)
    folders = [path.parent for path in (storage / "sweeps").glob(f"*/{RECORD}")]
    records = [SweepRecord.load(folder) for folder in folders if not is_of_group(storage, folder.name)]
    found = [r for r in records if (r.scenario, r.model, r.status) == (used, MODEL, "completed")]
    if not found:
        sweep = command_line("sweep", "--scenario", options.scenario, storage=storage)
        raise InputError(
            f"no completed sweep of {used} in {storage}: give --tune N to search every row, or run {sweep}"
        )
    record = max(found, key=lambda record: record.created)
    record.storage = str(storage)
    return record


def finalize(group: Group, scenario: Scenario) -> None:
    """Fix which features stand for what and which row is the full model; it is always among the rows.

    Features that come later make a new ablation.

    Raises:
        InputError: not even the first row can run.
    """
    if group.facts.get("encoders") is None:
        wanted = {kind: group.fixed.get(f"{kind}_encoder", "auto") for kind in ("text", "image")}
        group.facts["encoders"] = find_encoders(scenario, **wanted).model_dump()
    rows = ablation_rows(group, Encoders(**group.facts["encoders"]))
    group.reference = full_row(rows)
    group.rows = [row for name, row in rows.items() if name in (*group.names, group.reference)]


def how(group: Group) -> str:
    """How the rows come to their configurations, in a few words."""
    if group.trials:
        return f"every row searched with {group.trials} trials at most"
    return f"every row fixed at the configuration of {group.origin}"


def facts(group: Group, scenario: Scenario | None) -> list[tuple[str, str]]:
    """What a dry run says about the group, line by line."""
    said = [data_fact(group, scenario)]
    if found := group.facts.get("encoders"):
        named = {"text": found["text"], "text with LLM text": found["llm"], "image": found["image"]}
        said.append(("features", ", ".join(f"{kind} by {name}" for kind, name in named.items() if name) or "none"))
        said.append(("full model", f"row {group.reference}: {group.row(group.reference).title!r}"))
    return [
        *said,
        ("rows", f"{how(group)}; {text_format.plural(len(group.seeds), 'seed')}, each tested once"),
        ("shared", text_format.settings(group.fixed)),
        *set_fact(group),
    ]


def params(group: Group) -> dict[str, Any]:
    """The parameters of the group's run in MLflow."""
    return {
        "rows": "+".join(group.names),
        "full_model": group.reference,
        "configuration": f"tuned, {group.trials} trials" if group.trials else group.origin,
        "seeds": "+".join(map(str, group.seeds)),
        **group.fixed,
    }


def paper_value(paper: PaperTable, row: str, domain: str, metric: str) -> float | None:
    """Its table 4: MRR of X in Movie-Book."""
    of_table4 = paper is MOVIE_BOOK and (domain, metric) == (MOVIE_BOOK.domains[0], "mrr")
    return ABLATION.get(row) if of_table4 else None


def _paper_domain(table: Table) -> str:
    return table.domains[0] if table.paper is MOVIE_BOOK else ""


def _paper_heading(table: Table) -> str:
    return "paper MRR" if table.same_data else "paper MRR (other data)"


def _sections(table: Table) -> list[tuple[str, list[TableRow]]]:
    """Heading of a section -> its rows, in order; sections without a row are left out."""
    found = [(title, [row for row in table.rows if row.row.section == key]) for key, title in SECTIONS.items()]
    return [(title, rows) for title, rows in found if rows]


def _against_full(row: TableRow, domain: str) -> list[Cell]:
    """Distance of the mean MRR from the full model's in points of percent, and p over cases and over seeds."""
    metric = f"test/{domain}/mrr"
    test = row.case_tests.get(metric)
    difference = "-" if test is None else f"{100 * test.difference:+.2f}"
    return [Cell(difference, "signed"), Cell(p_value(test)), Cell(p_value(row.seed_tests.get(metric)))]


def _paper_cell(table: Table, row: TableRow, domain: str) -> Cell:
    value = row.paper.get(f"test/{domain}/mrr")
    return Cell("-" if value is None else f"{value:.2f}")


def _domain_block(table: Table, domain: str, *, paper: bool) -> Block:
    headings = ["row", *layout.TEST_HEADINGS, "difference (MRR)", "p, cases", "p, seeds"]
    block = Block(domain, [*map(Column, headings), *([Column(_paper_heading(table))] if paper else [])])
    for title, rows in _sections(table):
        block.lines.append([Cell(title, "section")])
        for row in rows:
            numbers = layout.numbers(table, row, domain, marked=False)
            if row.name == table.group.reference:
                numbers = [Cell(cell.text, "full") for cell in numbers]
            last = [_paper_cell(table, row, domain)] if paper else []
            block.lines.append([layout.named(row), *numbers, *_against_full(row, domain), *last])
    return block


CSV_COLUMNS = (
    "row", "title", "group", "full_model", "outcome", *layout.CSV_CELLS, "difference", "p", "p_holm", "p_seeds",
    "p_seeds_holm", "paper", "paper_data", "validation", "validation_spread", "settings", "reason",
)  # fmt: skip


def files(table: Table) -> dict[str, str]:
    """The tables that are written into the group's folder, by file name."""
    group, paper = table.group, bool(_paper_domain(table))
    lines = []
    for row in table.rows:
        own = {"group": row.row.section, "full_model": int(row.name == group.reference)}
        lines += layout.csv_lines(table, row, {**layout.row_facts(row), **own})
    blocks = [_domain_block(table, domain, paper=domain == _paper_domain(table)) for domain in table.domains]
    last = ["Difference", "$p$, cases", "$p$, seeds"] + ([tex(_paper_heading(table))] if paper else [])
    head = [
        f" & {layout.PAIRED_HEAD}" + " & " * len(last),
        " & ".join(["Row", *[*layout.HEADINGS.values()] * 2, *last]),
    ]
    name = table.scenario.name
    return {
        "ablation.md": markdown(
            f"Ablation {group.name}", f"LLM-EMF on scenario `{name}`.", [*blocks, layout.rows_block(table)], table.notes
        ),
        "ablation.csv": csv_text(CSV_COLUMNS, lines),
        "ablation.tex": latex(
            f"Ablation of LLM-EMF on {tex(name)}.",
            head,
            [_domain_block(table, domain, paper=paper) for domain in table.domains],
            table.notes,
        ),
    }


def blocks(table: Table, console: Console) -> list[Block]:
    """The tables that are printed at the end."""
    mrr, ndcg = ("test", "mrr"), ("test", "ndcg_10")
    variants = (layout.ALL_COLUMNS, [*layout.SAMPLED, ("test_full", "mrr")], [mrr, ndcg])
    return [
        layout.fitting([_terminal_block(table, domain, list(columns)) for columns in variants], console)
        for domain in table.domains
    ]


def _terminal_block(table: Table, domain: str, columns: list[tuple[str, str]]) -> Block:
    with_paper = domain == _paper_domain(table)
    block = Block(domain, [Column(f"\n{domain}", right=False), Column("\nvalidation"), *layout.metric_columns(columns)])
    block.columns += map(Column, ("MRR\ndifference", "p\ncases", "p\nseeds"))
    if with_paper:
        block.columns.append(
            Column("paper\nMRR" if table.same_data else "paper MRR\n(other data)", wrap=True, style="dim")
        )
    for title, rows in _sections(table):
        block.lines.append([Cell(title, "section")])
        for row in rows:
            full = row.name == table.group.reference
            name = row.row.title.partition(" (")[0] + (" (full)" if full else "")
            first = layout.state(row) if row.state else Cell(number(row.cells.get(OBJECTIVE), 4))
            numbers = layout.numbers(table, row, domain, columns, marked=False)
            last = [_paper_cell(table, row, domain)] if with_paper else []
            cells = [first, *numbers, *_against_full(row, domain), *last]
            block.lines.append([Cell(f"  {name}", "winner" if full else ""), *cells])
    return block


def annotate(table: Table) -> None:
    """The full model's mark, and what a reader of the table must know."""
    group, done = table.group, table.done
    for row in table.rows:
        row.heading = row.row.title + (" (full model)" if row.name == group.reference else "")
    table.notes = [
        (
            f"In percent: mean and standard deviation over {text_format.plural(len(group.seeds), 'seed')}; {how(group)}. Each "
            "seed was tested once, at its best validation epoch. Validation: what training monitors, mean and spread over seeds."
        ),
        (
            f"Sampled: the target among {table.scenario.candidates['test'].shape[1]:,} stored items of its domain; all items: "
            "among the whole catalogue of its domain."
        ),
    ]
    if len(done) > 1:
        table.notes.append(
            "Difference and p: against the full model, MRR, sampled; paired two-sided t-tests with Holm's correction for the "
            f"{text_format.plural(len(done) - 1, 'row')} of a domain. Over cases (the reciprocal rank of a case averaged over "
            "seeds): would these trained models differ for other users? Over seeds: would other seeds give the same answer? "
            "A difference stands where both are small; over few seeds only large ones can be."
        )
    if group.trials is None:
        table.notes.append(
            "Rows keep the full model's configuration; one that was tuned for itself might do better (--tune N gives every "
            "row a search of its own)."
        )
    if _paper_domain(table):
        text = f"{_paper_heading(table)}: as printed in LLM-EMF's table 4, by its authors."
        if not table.same_data:
            text += " This scenario has other sizes: the numbers do not stand beside each other."
        table.notes.append(text)
    table.notes += [f"{row.row.title} {row.state}: {row.result.reason}." for row in table.rows if row.result.reason]
    table.notes += next((row.result.notes for row in done if row.name == group.reference), [])


KIND = Kind("ablation", plan_ablation, facts, params, files, annotate, finalize, paper_value, blocks)
