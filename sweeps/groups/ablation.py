"""Ablations: LLM-EMF with one thing taken away or changed per row, against the full model (the paper's table 4 and more).

The configuration is that of a sweep's best trial (fixed), or every row searches its own with one budget (tuned).
"""

from __future__ import annotations

import datetime
from functools import partial
from pathlib import Path
from typing import Any

from llmemf import text_format
from llmemf.command_line import command_line
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError, nearest
from llmemf.models.llm_emf_config import LLMEMFConfig
from llmemf.scenarios.scenario import Scenario
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.settings import ScenarioFile, checked_settings, scenario_files, used_scenario
from sweeps.groups.ablation_rows import MODEL, SECTIONS, STANDARD, ablation_rows, full_row
from sweeps.groups.columns import ALL_METRICS, CSV_CELLS, SAMPLED_AND_MRR, Field, paper_cell, paper_heading
from sweeps.groups.encoders import Encoders, find_encoders
from sweeps.groups.group import Group, Row
from sweeps.groups.kind import Kind
from sweeps.groups.notes import sampled_note
from sweeps.groups.paper_numbers import ABLATION as TABLE_4
from sweeps.groups.plan import GroupOptions, named_sweep, new_group, of_best_trial
from sweeps.groups.render import Cell, Column, number, p_value, tex
from sweeps.groups.table import OBJECTIVE, Table, TableRow
from sweeps.state.sweep_record import SweepRecord, group_of, stored_sweeps


def _tuned(options: GroupOptions, now: datetime.datetime) -> dict[str, Any]:
    """Fields of the group where every row is searched: what a sweep of the scenario would search."""
    same = {key: getattr(options, key) for key in ("scenario", "epochs", "seed", "storage", "assignments")}
    sweep = plan_sweep(Options(**same, trials=options.tune, data_root=options.root, warm_start="none"), now=now)
    record = sweep.record
    if record.model != MODEL:
        raise InputError(f"{record.scenario}: an ablation is of {MODEL}, this file is for {record.model}")
    keys = ("requested", "scenario", "space", "constraints", "search", "scheduler", "grace_period", "reduction_factor")
    shared = {key: getattr(record, key) for key in (*keys, "seed")}
    return {**shared, "fixed": {**record.fixed, "epochs": sweep.epochs}}


def _fixed(options: GroupOptions) -> dict[str, Any]:
    """Fields of the group where all rows have the configuration of a sweep's best trial."""
    storage = options.storage.resolve()
    if options.from_sweep is not None:
        record = named_sweep(options.from_sweep, storage, options.scenario)
    else:
        record = _newest_sweep(options, storage)
    if record.model != MODEL:
        raise InputError(f"--from {record.name}: an ablation is of {MODEL}, that sweep is of {record.model}")
    return of_best_trial(record, options)


def _newest_sweep(options: GroupOptions, storage: Path) -> SweepRecord:
    """The newest completed sweep of the scenario that stands alone."""
    used = used_scenario(options.scenario, options.root)
    records = [record for record in stored_sweeps(storage) if not group_of(storage, record.name)]
    found = [r for r in records if (r.scenario, r.model, r.is_searched) == (used, MODEL, True)]
    if not found:
        sweep = command_line("sweep", "--scenario", options.scenario, storage=storage)
        raise InputError(
            f"no completed sweep of {used} by {MODEL} in {storage}: give --tune N to search every row, or run {sweep}"
        )
    return max(found, key=lambda record: record.created)


def how(group: Group) -> str:
    """How the rows come to their configurations, in a few words."""
    if group.trials:
        return f"every row searched with {group.trials} trials at most"
    return f"every row fixed at the configuration of {group.origin}"


class Ablation(Kind):
    """Rows are variants of LLM-EMF, tested against its full model."""

    name = "ablation"
    papers = (TABLE_4,)
    sections = SECTIONS
    csv_columns = (
        "row", "title", "group", "full_model", "outcome", *CSV_CELLS, "difference", "p", "p_holm", "p_seeds",
        "p_seeds_holm", "paper", "paper_data", "validation", "validation_spread", "settings", "reason",
    )  # fmt: skip
    variants = ((ALL_METRICS, 2), (SAMPLED_AND_MRR, 2), ((("test", "mrr"), ("test", "ndcg_10")), 2))
    rows_in_terminal = False

    def plan(self, options: GroupOptions, now: datetime.datetime) -> Group:
        """A new ablation; without `tune` and `from_sweep` at the best configuration of the newest completed sweep.

        Raises:
            InputError: any mistake in options or scenario file, in one sentence.
        """
        if options.tune is not None and options.from_sweep is not None:
            raise InputError("--tune and --from exclude each other: every row is searched, or all are fixed")
        if options.from_sweep is None:
            used_scenario(options.scenario, options.root)
        source = _tuned(options, now) if options.tune is not None else _fixed(options)
        used, files = source["scenario"], scenario_files(options.root)
        values = read_yaml(files[used]) if used in files else {}
        own = build_config(ScenarioFile, values, where=f"{used}.yaml").ablations
        where = f"{used}: ablations"
        own = {name: checked_settings(LLMEMFConfig, values, f"{where}: {name}") for name, values in own.items()}
        taken = sorted(set(own) & set(STANDARD))
        if taken:
            raise InputError(f"{used}: ablations: {taken[0]!r} is a row that every scenario has: take another name")
        known = [*STANDARD, *own]
        for name in options.rows or []:
            if name not in known:
                raise InputError(f"--rows: unknown row {name!r}: {nearest(name, known)}; --dry-run lists all")
        rows = [Row(name=name, model=MODEL) for name in known if options.rows is None or name in options.rows]
        return new_group(self.name, options, now, **source, rows=rows, trials=options.tune, facts={"own": own})

    def finalize(self, group: Group, scenario: Scenario) -> None:
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

    def own_facts(self, group: Group) -> list[tuple[str, str]]:
        said = []
        if found := group.facts.get("encoders"):
            named = {"text": found["text"], "text with LLM text": found["llm"], "image": found["image"]}
            said.append(("features", ", ".join(f"{kind} by {name}" for kind, name in named.items() if name) or "none"))
            said.append(("full model", f"row {group.reference}: {group.row(group.reference).title!r}"))
        return [*said, ("rows", f"{how(group)}; {text_format.plural(len(group.seeds), 'seed')}, each tested once")]

    def params(self, group: Group) -> dict[str, object]:
        configuration = f"tuned, {group.trials} trials" if group.trials else group.origin
        return {"full_model": group.reference, "configuration": configuration}

    def subtitle(self, table: Table) -> str:
        return f"LLM-EMF on scenario `{table.scenario.name}`."

    def caption(self, table: Table) -> str:
        return f"Ablation of LLM-EMF on {tex(table.scenario.name)}."

    def label(self, table: Table, row: TableRow) -> str:
        return row.row.title.partition(" (")[0] + (" (full)" if row.name == table.group.reference else "")

    def fields(self, table: Table, domain: str) -> list[Field]:
        validation = Field(lambda row: Cell(number(row.cells.get(OBJECTIVE), 4)), terminal=Column("\nvalidation"))
        return [validation, *super().fields(table, domain)]

    def beside(self, table: Table, domain: str) -> list[Field]:
        """Distance of the mean MRR from the full model's in points of percent, p over cases and seeds, the paper's MRR."""
        metric = f"test/{domain}/mrr"

        def difference(row: TableRow) -> Cell:
            test = row.case_tests.get(metric)
            return Cell("-" if test is None else f"{100 * test.difference:+.2f}", "signed")

        def p_cases(row: TableRow) -> Cell:
            return Cell(p_value(row.case_tests.get(metric)))

        def p_seeds(row: TableRow) -> Cell:
            return Cell(p_value(row.seed_tests.get(metric)))

        fields = [
            Field(difference, "difference (MRR)", "Difference", Column("MRR\ndifference")),
            Field(p_cases, "p, cases", "$p$, cases", Column("p\ncases")),
            Field(p_seeds, "p, seeds", "$p$, seeds", Column("p\nseeds")),
        ]
        # All blocks of LaTeX have the columns of the first.
        if table.paper:
            heading = paper_heading(table, " MRR")
            column = Column("paper\nMRR" if table.same_data else "paper MRR\n(other data)", wrap=True, style="dim")
            here, cell = domain == table.domains[0], partial(paper_cell, domain=domain, metric="mrr")
            fields.append(Field(cell, heading if here else "", tex(heading), column if here else None))
        return fields

    def csv_facts(self, table: Table, row: TableRow) -> dict[str, object]:
        full = int(row.name == table.group.reference)
        return {**super().csv_facts(table, row), "group": row.row.section, "full_model": full}

    def annotate(self, table: Table) -> None:
        group, done = table.group, table.done
        for row in table.rows:
            row.heading = row.row.title + (" (full model)" if row.name == group.reference else "")
        protocol = (
            f"In percent: mean and standard deviation over {text_format.plural(len(group.seeds), 'seed')}; {how(group)}. Each "
            "seed was tested once, at its best validation epoch. Validation: what training monitors, mean and spread over "
            "seeds."
        )
        table.notes = [protocol, sampled_note(table)]
        if len(done) > 1:
            table.notes.append(
                f"Difference and p: against the full model, {table.tested_metric}; paired two-sided t-tests with Holm's correction for "
                f"the {text_format.plural(len(done) - 1, 'row')} of a domain. Over cases (the reciprocal rank of a case "
                "averaged over seeds): would these trained models differ for other users? Over seeds: would other seeds give "
                "the same answer? A difference stands where both are small; over few seeds only large ones can be."
            )
        if group.trials is None:
            table.notes.append(
                "Rows keep the full model's configuration; one that was tuned for itself might do better (--tune N gives "
                "every row a search of its own)."
            )
        if table.paper:
            text = f"{paper_heading(table, ' MRR')}: as printed in LLM-EMF's table 4, by its authors."
            if not table.same_data:
                text += " This scenario has other sizes: the numbers do not stand beside each other."
            table.notes.append(text)
        table.notes += [f"{row.row.title} {row.state}: {row.result.reason}." for row in table.rows if row.result.reason]
        table.notes += next((row.result.notes for row in done if row.name == group.reference), [])


KIND = Ablation()
