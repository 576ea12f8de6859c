"""How a scenario, its audit and its histories look in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from rich import box
from rich.console import Group
from rich.table import Table
from rich.text import Text

from llmemf.scenarios.audit import Audit, LeakFacts, Lengths
from llmemf.scenarios.manifest import Manifest
from llmemf.scenarios.scenario import SPLITS, Scenario
from llmemf.text_format import percent

CASES = ("valid", "test")
SHOWN_ITEMS = 8
NOTHING = "-"


def summary(scenario: Scenario) -> Table:
    """The scenario in a few lines: items, users, splits, targets, candidates, content, origin, fingerprint."""
    facts = Table(box=None, show_header=False, pad_edge=False)
    facts.add_column(style="bold", no_wrap=True)
    facts.add_column(overflow="fold")
    counts = (scenario.num_x, scenario.num_y)
    facts.add_row("items", ", ".join(f"{count:,} {domain}" for domain, count in zip(scenario.domains, counts)))
    facts.add_row("users", f"{scenario.num_users:,}")
    train = scenario.train
    facts.add_row("train", f"{len(train):,} sequences, {len(train.items):,} interactions")
    for name in CASES:
        cases = scenario.split(name)
        in_y = int(scenario.domain_of(cases.targets).sum())
        x, y = scenario.domains
        facts.add_row(name, f"{len(cases):,} cases, targets {len(cases) - in_y:,} {x} + {in_y:,} {y}")
    facts.add_row(
        "candidates", " and ".join(f"{scenario.candidates[name].shape[1]:,} per {name} case" for name in CASES)
    )
    for column in scenario.item_columns[1:]:
        share = float((scenario.items[column].astype(str) != "").mean())
        facts.add_row(column.removesuffix("s") + "s", f"{percent(share, 1)} of the items" if share else "none")
    facts.add_row("origin", origin(scenario.source))
    facts.add_row("fingerprint", scenario.fingerprint[:16])
    return facts


def origin(source: dict[str, Any]) -> str:
    """Reader, options and what was left out, on one line; hashes and zero counts stay in the manifest."""
    told = []
    for key, value in source.items():
        if isinstance(value, dict):
            told += [f"{key} {part} {count:,}" for part, count in value.items() if isinstance(count, int) and count]
        elif isinstance(value, list | tuple):
            told.append(f"{key} {','.join(map(str, value))}")
        else:
            told.append(
                f"{key} {value:,}" if isinstance(value, int) and not isinstance(value, bool) else f"{key} {value}"
            )
    return ", ".join(told)


def manifest_facts(scenario: Scenario) -> Table:
    """One line per part: how it is hashed in the manifest."""
    table = Table(box=box.SIMPLE_HEAD, title="parts", title_justify="left", title_style="bold")
    table.add_column("part", no_wrap=True)
    table.add_column("sha256", overflow="fold")
    for part, digest in scenario.hashes().items():
        table.add_row(part, digest[:32])
    return table


def example_histories(scenario: Scenario, count: int = 3) -> Group:
    """Test cases, evenly spread over the split: the latest items of the history and the held-out target."""
    cases = scenario.test
    chosen = np.unique(np.linspace(0, len(cases) - 1, count).astype(int))
    return Group(*(_history(scenario, index) for index in chosen))


def _history(scenario: Scenario, index: int) -> Table:
    cases = scenario.test
    start, end = cases.offsets[index], cases.offsets[index + 1]
    user = scenario.user_ids[cases.users[index]]
    table = Table(
        box=box.SIMPLE_HEAD, title=f"user {user}, {end - start - 1} items, then the target", title_justify="left"
    )
    table.title_style = "bold"
    timed = cases.times[start] >= 0
    shown = max(start, end - SHOWN_ITEMS)
    described = scenario.items.iloc[cases.items[shown:end]]
    if timed:
        table.add_column("day", no_wrap=True)
    table.add_column("domain", no_wrap=True)
    table.add_column("item", no_wrap=True)
    table.add_column("title", overflow="fold")
    if shown > start:
        table.add_row(*([NOTHING] if timed else []), NOTHING, NOTHING, f"({shown - start} earlier)", style="dim")
    for place, external_id, title in zip(range(shown, end), described.external_id, described.title):
        cells = [_day(int(cases.times[place]))] if timed else []
        cells += [scenario.domains[scenario.domain_of(cases.items[place])], str(external_id), str(title) or NOTHING]
        table.add_row(*map(Text, cells), style="bold" if place == end - 1 else "")
    return table


def audit_view(audit: Audit) -> Group:
    """All facts of an audit as tables, its leak check last."""
    features = [f"{name} ({count:,} items)" for name, count in audit.features.items()]
    return Group(
        _domain_table(audit),
        _split_table(audit),
        _candidate_table(audit),
        _leak_table(audit),
        Text(f"features: {', '.join(features) or 'none'}"),
    )


def facts_table(title: str, columns: Iterable[str]) -> Table:
    """A table with a title, a first column of names, and columns of numbers."""
    table = Table(box=box.SIMPLE_HEAD, title=title, title_justify="left", title_style="bold")
    table.add_column("", overflow="fold")
    for column in columns:
        table.add_column(column, justify="right", no_wrap=True)
    return table


def _domain_table(audit: Audit) -> Table:
    table = facts_table("domains", audit.domains)
    facts = list(audit.domains.values())
    table.add_row("items", *(f"{one.items:,}" for one in facts))
    table.add_row("  in training", *(f"{one.items_in_training:,}" for one in facts))
    table.add_row("users", *(f"{one.users:,}" for one in facts))
    for name in SPLITS:
        table.add_row(f"{name} interactions", *(f"{one.interactions[name]:,}" for one in facts))
    for name in CASES:
        table.add_row(f"{name} targets", *(f"{one.targets[name]:,}" for one in facts))
        table.add_row("  never in training", *(_part(one.cold_targets[name], one.targets[name]) for one in facts))
    return table


def _split_table(audit: Audit) -> Table:
    table = facts_table("splits", audit.splits)
    facts = list(audit.splits.values())
    table.add_row("sequences", *(f"{one.sequences:,}" for one in facts))
    table.add_row("users", *(f"{one.users:,}" for one in facts))
    table.add_row("  without training", *(_part(one.cold_users, one.users) for one in facts))
    table.add_row("interactions", *(f"{one.interactions:,}" for one in facts))
    table.add_row("length min/mean/median/max", *(_spread(one.lengths) for one in facts))
    for index, domain in enumerate(audit.domains):
        table.add_row(f"  {domain}", *(_spread(one.domain_lengths[index]) for one in facts))
    table.add_row("first day", *(_day(one.first_time) for one in facts))
    table.add_row("last day", *(_day(one.last_time) for one in facts))
    table.add_row(
        "longest span, days", *(NOTHING if one.longest_days is None else f"{one.longest_days:.0f}" for one in facts)
    )
    shares = (one.same_day_ends for one in facts)
    table.add_row("last two items on one day", *(NOTHING if share is None else percent(share, 1) for share in shares))
    return table


def _candidate_table(audit: Audit) -> Table:
    table = facts_table("candidates per case", audit.candidates)
    facts = list(audit.candidates.values())
    table.add_row(
        "negatives",
        *(f"{one.width:,}" if one.fewest == one.width else f"{one.fewest:,} to {one.width:,}" for one in facts),
    )
    table.add_row("  repeated, mean", *(f"{one.duplicates:.2f}" for one in facts))
    table.add_row("  from the history, mean", *(f"{one.history:.2f}" for one in facts))
    return table


def _leak_table(audit: Audit) -> Table:
    table = facts_table("leak check: cases with", audit.leak_facts)
    facts = list(audit.leak_facts.values())
    table.add_row("target in the user's training", *(_verdict(one.target_in_training, one) for one in facts))
    table.add_row("target in the user's validation", *(_verdict(one.target_in_validation, one) for one in facts))
    table.add_row("target in its own input", *(_verdict(one.target_in_input, one) for one in facts))
    table.add_row("training later than the target", *(_verdict(one.later_training, one) for one in facts))
    table.add_row("target taken before (no leak)", *(_part(one.repeats, one.cases) for one in facts), style="dim")
    return table


def _verdict(count: int | None, facts: LeakFacts) -> Text:
    if count is None:
        return Text("no times", style="yellow")
    return Text(_part(count, facts.cases), style="bold red") if count else Text("none", style="green")


def _part(count: int, whole: int) -> str:
    return f"{count:,} ({percent(count / whole, 1)})" if count and whole else "0"


def _spread(lengths: Lengths) -> str:
    return f"{lengths.min}/{lengths.mean:.1f}/{lengths.median:g}/{lengths.max}"


def _day(time: int | None) -> str:
    return NOTHING if time is None or time < 0 else datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")


def scenario_list(manifests: Mapping[Path, Manifest | None]) -> Table:
    """One line per prepared scenario, also for one whose manifest cannot be read (None)."""
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False)
    table.add_column("scenario", overflow="fold", min_width=8)
    for column in ("items", "users", "cases"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("features", overflow="fold", min_width=13)
    table.add_column("hash", no_wrap=True)
    for folder, manifest in manifests.items():
        if manifest is None:
            table.add_row(folder.name, *[NOTHING] * 3, "cannot be read", NOTHING)
            continue
        features = sorted(path.parent.name for path in folder.glob("features/*/manifest.json"))
        x, y = manifest.domains
        table.add_row(
            folder.name,
            f"{manifest.num_x:,} {x}\n{manifest.num_items - manifest.num_x:,} {y}",
            f"{manifest.num_users:,}",
            f"{manifest.sequences.get('test', 0):,}",
            "\n".join(features) or NOTHING,
            manifest.fingerprint[:8],
        )
    return table
