"""Reader of a shop's own tables: interactions of two domains, and what the items are (CSV or Parquet).

    interactions    user, item, time, domain                               one row per purchase, click, rating, ...
    items           item[, domain], title, description, categories, image  all but the first may be missing

Columns stand in any order and may have other names (`columns`); further ones are left out. Where the interactions have
no domain, the item table has it. Times are Unix seconds or milliseconds, or dates as `2023-05-31` or
`2023-05-31T18:04:00+02:00` (UTC where no zone is given). Images are addresses, or paths from the item table's folder.
Items are one thing per domain: an id that occurs in both domains stands for two items.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from llmemf.errors import InputError, nearest
from llmemf.scenarios.amazon import domain_name
from llmemf.scenarios.bad_lines import LineCounts
from llmemf.scenarios.images import check_inside
from llmemf.scenarios.interactions import InteractionCollector
from llmemf.scenarios.item_texts import ItemText, category_paths, plain_text
from llmemf.scenarios.lines import Progress
from llmemf.scenarios.loose_records import identifier, unix_seconds
from llmemf.scenarios.names import check_names
from llmemf.scenarios.preparation import PreparationReport, prepare
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.review_files import ROWS, ReviewColumns
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.table_rows import ROLES, TableRows

OTHER_DOMAIN = "of another domain"
UNKNOWN_ITEM = "item has no domain in the item table"


class _Labels:
    """The two labels of the domain column, case apart: given, or the first two that appear."""

    def __init__(self, labels: tuple[str, str] | None) -> None:
        self._fixed = labels is not None
        self.found: list[str] = list(labels or ())
        self._index = {label.lower(): index for index, label in enumerate(self.found)}

    def domain(self, label: str, path: Path, number: int) -> int | None:
        """0 for X, 1 for Y, None for a label that was not asked for."""
        index = self._index.get(label.lower())
        if index is None and not self._fixed:
            if len(self.found) == 2:
                raise InputError(
                    f"{path}:{number}: a third domain {label!r} after {self.found[0]!r} and {self.found[1]!r}: say which "
                    "two are wanted with --labels"
                )
            index = self._index[label.lower()] = len(self.found)
            self.found.append(label)
        return index


def read_table(
    interactions: str | Path,
    items: str | Path | None,
    name: str,
    domains: tuple[str, str] | None = None,
    labels: tuple[str, str] | None = None,
    columns: Mapping[str, str] | None = None,
    options: PreparationOptions | None = None,
    progress: Progress | None = None,
    scratch: Path | None = None,
    tell: Callable[[str], None] | None = None,
) -> tuple[Scenario, PreparationReport]:
    """Read two tables and prepare their scenario.

    Args:
        interactions: the interactions.
        items: the item table; None leaves the items without texts and images.
        name: name of the new scenario.
        domains: names of X and Y; by default the labels in lower case.
        labels: what the domain column calls X and Y; rows of other domains are left out. By default `domains`, and
            without these the column's two values in the order of their first rows.
        columns: the column that plays a role, where it has no usual name, for example {"user": "kunde"}.
        options: see there.
        progress: see `lines`.
        scratch: folder for temporary files.
        tell: called with what is done next, where it may take long.

    Raises:
        InputError: a file is missing or too bad, lacks a column, or nothing is left after some step.
    """
    interactions, items = Path(interactions), None if items is None else Path(items)
    options, columns = options or PreparationOptions(), dict(columns or {})
    check_names(name, domains or ("x", "y"))
    report = PreparationReport()
    known = _Labels(labels or domains)
    _check_columns(columns, [interactions] if items is None else [interactions, items])
    rows = TableRows(interactions, ("user", "item", "time"), ("domain",), columns)
    item_domains = None if "domain" in rows.present else _item_domains(items, interactions, columns, options)

    with InteractionCollector(scratch, options.hash_seed, shared_items=True) as collector:
        _collect(rows, known, item_domains, collector, report, options, progress)
        if len(known.found) < 2 or not all(collector.read):
            raise InputError(
                f"{interactions}: two domains are needed, found rows of {_names(known, collector)}; the domain column "
                "must hold two values, or name its labels with --labels"
            )
        names = domains or (domain_name(known.found[0]), domain_name(known.found[1]))
        if "" in names or names[0] == names[1]:
            raise InputError(
                f"{interactions}: no two names can be made of the domains {' and '.join(map(repr, known.found))}: give "
                f"them names, for example --domains movie,book --labels {','.join(known.found)}"
            )

        def describe(external_ids: list[np.ndarray]) -> list[dict[str, ItemText]]:
            if items is None:
                return [{}, {}]
            rows = TableRows(items, ("item",), ("domain", "title", "description", "categories", "image"), columns)
            return _described(rows, external_ids, known, report.counts(items, options), progress)

        scenario = prepare(collector, describe, name, names, options, report, "table", tell)
    scenario.source["labels"] = known.found
    return scenario, report


def _names(known: _Labels, collector: InteractionCollector) -> str:
    return ", ".join(repr(label) for label, count in zip(known.found, collector.read) if count) or "none"


def _check_columns(columns: Mapping[str, str], paths: list[Path]) -> None:
    """A named column must exist in one of the tables: the usual name may stand for another thing."""
    headers = [name for path in paths for name in TableRows(path, (), (), {}).header]
    for role, column in columns.items():
        if role not in ROLES:
            raise InputError(f"--columns {role}={column}: no such role; roles are {', '.join(ROLES)}")
        if column.lower() not in headers:
            raise InputError(
                f"--columns {role}={column}: no such column in {' and '.join(map(str, paths))}; "
                f"{nearest(column.lower(), headers)}"
            )


def _collect(
    rows: TableRows,
    known: _Labels,
    item_domains: dict[str, str] | None,
    collector: InteractionCollector,
    report: PreparationReport,
    options: PreparationOptions,
    progress: Progress | None,
) -> None:
    """Give all usable rows to the collector."""
    skipped = {OTHER_DOMAIN: 0, UNKNOWN_ITEM: 0}

    def parse(row: dict[str, Any]) -> tuple[str, str, int, str | None]:
        user, item = identifier(row, ("user",), "no user"), identifier(row, ("item",), "no item")
        label = identifier(row, ("domain",), "no domain") if item_domains is None else item_domains.get(item)
        return user, item, unix_seconds(row["time"]), label

    found = rows.read(report.counts(rows.path, options), parse, progress)
    while some := list(islice(found, ROWS)):
        by_domain: list[list[tuple[str, str, int]]] = [[], []]
        for number, (user, item, time, label) in some:
            domain = None if label is None else known.domain(label, rows.path, number)
            if domain is None:
                skipped[UNKNOWN_ITEM if label is None else OTHER_DOMAIN] += 1
            else:
                by_domain[domain].append((user, item, time))
        for domain in (0, 1):
            collector.add(domain, *ReviewColumns.of(by_domain[domain]))
    report.facts.update({f"rows {reason}": count for reason, count in skipped.items() if count})


def _item_domains(
    items: Path | None, interactions: Path, columns: dict[str, str], options: PreparationOptions
) -> dict[str, str]:
    """The domain's label of every item, for interactions without one."""
    if items is None:
        raise InputError(f"{interactions} has no domain column: name it with --columns domain=..., or give --items")
    rows = TableRows(items, ("item", "domain"), (), columns)
    found: dict[str, str] = {}

    def parse(row: dict[str, Any]) -> tuple[str, str]:
        return identifier(row, ("item",), "no item"), identifier(row, ("domain",), "no domain")

    for number, (item, label) in rows.read(LineCounts(items, options.max_bad_lines), parse):
        if found.setdefault(item, label).lower() != label.lower():
            raise InputError(
                f"{items}:{number}: item {item!r} is of domain {label!r} here and of {found[item]!r} before: give the "
                "interactions a domain column"
            )
    return found


def _described(
    rows: TableRows, external_ids: list[np.ndarray], known: _Labels, counts: LineCounts, progress: Progress | None
) -> list[dict[str, ItemText]]:
    """What the item table says of the wanted items, by domain and id."""
    wanted = [set(names) for names in external_ids]
    found: list[dict[str, ItemText]] = [{}, {}]

    def parse(row: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        return identifier(row, ("item",), "no item"), row

    for number, (item, row) in rows.read(counts, parse, progress):
        label = "" if row.get("domain") is None else str(row["domain"]).strip().lower()
        for index in (0, 1):
            if item in wanted[index] and label in ("", known.found[index].lower()):
                text = _text(row, f"{rows.path}:{number}")
                found[index][item] = found[index].get(item, ItemText()).completed_by(text)
    return found


def _text(row: dict[str, Any], place: str) -> ItemText:
    image = row.get("image")
    image = image.strip() if isinstance(image, str) and image.strip() != r"\N" else ""
    check_inside(image, place)
    return ItemText(
        plain_text(row.get("title")), plain_text(row.get("description")), category_paths(row.get("categories")), image
    )
