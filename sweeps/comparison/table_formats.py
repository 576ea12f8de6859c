"""The table of a comparison as Markdown, CSV and LaTeX."""

from __future__ import annotations

import csv
import io
import math

import numpy as np

from llmemf import text_format
from sweeps.comparison.paper_numbers import PAPER_METRICS, shown_name
from sweeps.comparison.significance import Test
from sweeps.comparison.tables import HEADINGS, RANKINGS, Cell, ComparisonTable, Place, Row


def number(cell: Cell | None) -> str:
    """`5.05 ± 0.12`, or `5.05` of a single seed."""
    if cell is None:
        return "-"
    return f"{cell.mean:.2f}" + ("" if cell.spread is None else f" ± {cell.spread:.2f}")


def p_value(test: Test | None) -> str:
    if test is None or math.isnan(test.adjusted):
        return "-"
    return "<0.001" if test.adjusted < 0.001 else f"{test.adjusted:.3f}"


def costs(row: Row) -> dict[str, str]:
    """How a system came to its numbers, as text."""
    result = row.result
    search, seeds = result.search, list(result.seeds.values())
    if not search or not seeds:
        return dict.fromkeys(("trials", "search", "seeds", "training", "epochs", "parameters", "chosen"), "-")
    stopped = f" ({search['pruned']} stopped early)" if search["pruned"] else ""
    mean = {name: np.mean([getattr(seed, name) for seed in seeds]) for name in ("seconds", "best_epoch", "epochs_run")}
    return {
        "trials": f"{search['trials']}{stopped}",
        "search": text_format.duration(search["seconds"]),
        "seeds": str(len(seeds)),
        "training": text_format.duration(mean["seconds"]) if mean["seconds"] >= 10 else f"{mean['seconds']:.1f} s",
        "epochs": f"{mean['best_epoch']:.3g}/{mean['epochs_run']:.3g}",
        "parameters": count(result.parameters),
        "chosen": text_format.settings(result.chosen),
    }


COST_HEADINGS = {
    "trials": "trials",
    "search": "search time",
    "seeds": "seeds",
    "training": "training time",
    "epochs": "epochs best/run",
    "parameters": "parameters",
    "chosen": "chosen",
}


def count(parameters: int | None) -> str:
    """`812`, `65.5 k`, `12.3 M`."""
    if parameters is None:
        return "-"
    for size, unit in ((1e6, " M"), (1e3, " k")):
        if parameters >= size:
            return f"{parameters / size:.1f}{unit}"
    return str(parameters)


def as_markdown(table: ComparisonTable) -> str:
    """One table per domain and one of costs, with the notes."""
    lines = [f"# Comparison {table.name}", "", f"Scenario `{table.scenario}`.", ""]
    for domain in table.domains:
        headings = ["system", *HEADINGS.values(), *(f"{name}, all items" for name in HEADINGS.values())]
        headings += [f"{table.paper_heading} {name}" for name in HEADINGS.values()] if table.paper else []
        lines += [f"## {domain}", "", *markdown_head([*headings, "p", "against"])]
        for row in table.rows:
            cells = [row.name + (f": {row.state}" if row.state else "")]
            cells += [
                _marked(table, row, (ranking, domain, metric)) for ranking in RANKINGS for metric in PAPER_METRICS
            ]
            cells += _paper_cells(table, row, domain)
            lines.append(markdown_row([*cells, *_test_cells(row, domain)]))
        lines.append("")
    lines += ["## Costs", "", *markdown_head(["system", *COST_HEADINGS.values()])]
    lines += [markdown_row([row.name, *costs(row).values()]) for row in table.rows]
    times = (
        "Search time: of all trials together, as long as they held their places. Training time: of one seed's training "
        "steps, mean over seeds. Trials may have run beside one another, so times compare only on a quiet machine."
    )
    lines += ["", times, "", *[f"{note}\n" for note in table.notes]]
    return "\n".join(lines).rstrip("\n") + "\n"


def markdown_head(headings: list[str]) -> list[str]:
    return [markdown_row(headings), "|---|" + "---:|" * (len(headings) - 1)]


def markdown_row(cells: list[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _marked(table: ComparisonTable, row: Row, place: Place) -> str:
    text = number(row.cells.get(place))
    return {1: f"**{text}**", 2: f"<u>{text}</u>"}.get(table.place(row, place), text)


def _paper_cells(table: ComparisonTable, row: Row, domain: str) -> list[str]:
    if table.paper is None:
        return []
    values = [table.paper_value(row, domain, metric) for metric in PAPER_METRICS]
    return ["-" if value is None else f"{value:.2f}" for value in values]


def _test_cells(row: Row, domain: str) -> list[str]:
    test = row.tests.get(("test", domain, "mrr"))
    return [p_value(test), shown_name(test.against) if test else "-"]


CSV_COLUMNS = (
    "model", "system", "status", "outcome", "domain", "ranked_among", "metric", "mean", "spread", "seeds", "values",
    "paper", "paper_data", "p", "p_holm", "against", "difference", "parameters", "training_seconds", "search_seconds",
    "search_trials", "best_epoch", "epochs_run", "reason",
)  # fmt: skip


def as_csv(table: ComparisonTable) -> str:
    """One line per system, domain, ranking and metric, unrounded and in percent; systems without numbers have one line."""
    text = io.StringIO()
    writer = csv.DictWriter(text, CSV_COLUMNS, lineterminator="\n")
    writer.writeheader()
    for row in table.rows:
        result, seeds = row.result, list(row.result.seeds.values())
        shared = {
            "model": row.model,
            "system": shown_name(row.model),
            "status": result.status,
            "outcome": result.outcome or "waiting",
            "reason": result.reason,
        }
        if row.cells:
            shared |= {
                "parameters": result.parameters,
                "training_seconds": np.mean([seed.seconds for seed in seeds]),
                "search_seconds": result.search.get("seconds"),
                "search_trials": result.search.get("trials"),
                "best_epoch": np.mean([seed.best_epoch for seed in seeds]),
                "epochs_run": np.mean([seed.epochs_run for seed in seeds]),
            }
        else:
            writer.writerow(shared)
        for place, cell in row.cells.items():
            writer.writerow({**shared, **_csv_cell(table, row, place, cell)})
    return text.getvalue()


def _csv_cell(table: ComparisonTable, row: Row, place: Place, cell: Cell) -> dict[str, object]:
    ranking, domain, metric = place
    values = row.result.values("/".join(place))
    line: dict[str, object] = {
        "domain": domain,
        "ranked_among": "stored candidates" if ranking == "test" else "all items",
        "metric": metric,
        "mean": cell.mean,
        "spread": cell.spread,
        "seeds": len(values),
        "values": ";".join(repr(100 * value) for value in values),
    }
    paper = table.paper_value(row, domain, metric) if ranking == "test" else None
    if paper is not None:
        line |= {"paper": paper, "paper_data": "same" if table.same_data else "other"}
    test = row.tests.get(place)
    if test:
        line |= {"p": test.p, "p_holm": test.adjusted, "against": test.against, "difference": 100 * test.difference}
    return line


def as_latex(table: ComparisonTable) -> str:
    """One `table*` for `booktabs`: a block per domain; both rankings and the paper side by side."""
    groups = [("sampled", 3), ("all items", 3)] + ([(table.paper_heading, 3)] if table.paper else [])
    width = 1 + sum(size for _, size in groups) + 1
    spans = " & ".join(rf"\multicolumn{{{size}}}{{c}}{{{tex(title)}}}" for title, size in groups)
    lines = [
        r"% needs \usepackage{booktabs}",
        r"\begin{table*}",
        r"\centering\small",
        rf"\caption{{Systems on {tex(table.scenario)}.}}",
        r"\begin{tabular}{l" + "r" * (width - 1) + "}",
        r"\toprule",
        f" & {spans} & \\\\",
        "System & " + " & ".join([*HEADINGS.values()] * len(groups)) + r" & $p$ \\",
    ]
    for domain in table.domains:
        lines += [r"\midrule", rf"\multicolumn{{{width}}}{{l}}{{\textit{{{tex(domain)}}}}} \\"]
        for row in table.rows:
            cells = [tex(row.name + (f": {row.state}" if row.state else ""))]
            for ranking in RANKINGS:
                cells += [_latex_cell(table, row, (ranking, domain, metric)) for metric in PAPER_METRICS]
            cells += _paper_cells(table, row, domain)
            p = _test_cells(row, domain)[0].replace("<", "$<$")
            lines.append(" & ".join([*cells, p]) + r" \\")
    notes = r"\par\medskip\footnotesize\raggedright " + " ".join(tex(note) for note in table.notes)
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", notes, r"\end{table*}"]) + "\n"


def _latex_cell(table: ComparisonTable, row: Row, place: Place) -> str:
    text = number(row.cells.get(place)).replace(" ± ", r"\,$\pm$\,")
    return {1: rf"\textbf{{{text}}}", 2: rf"\underline{{{text}}}"}.get(table.place(row, place), text)


_TEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$"}
_TEX |= {character: "\\" + character for character in "&%$#_{}"}


def tex(text: str) -> str:
    """Plain text for LaTeX."""
    return "".join(_TEX.get(character, character) for character in text)
