"""Feature matrices in the terminal: one line each, and what a user should know beyond it."""

from __future__ import annotations

from collections.abc import Sequence

import typer
from rich.console import Console
from rich.table import Table

from llmemf.features.matrix import FeatureMatrix
from llmemf.scenarios.scenario import Scenario
from llmemf.text_format import percent


def feature_table(scenario: Scenario, matrices: Sequence[FeatureMatrix]) -> Table:
    """Kind, encoder, width, coverage of each domain and hash of every matrix."""
    table = Table("kind", "encoder", "width", *scenario.domains, "hash", box=None, header_style="bold")
    table.columns[1].overflow = "fold"
    for matrix in matrices:
        parts = (matrix.has[: scenario.num_x], matrix.has[scenario.num_x :])
        coverage = [f"{int(part.sum())} of {len(part)} ({percent(part.mean())})" for part in parts]
        table.add_row(matrix.kind, matrix.encoder, str(matrix.width), *coverage, matrix.hash()[:12])
    return table


def print_features(scenario: Scenario, matrices: Sequence[FeatureMatrix]) -> None:
    """Print the table of some matrices, and what a user should know beyond it."""
    Console(markup=False).print(feature_table(scenario, matrices))
    for matrix in matrices:
        for note in notes(matrix):
            typer.echo(f"note: {matrix.name}: {note}")


def notes(matrix: FeatureMatrix) -> list[str]:
    """What a user should know about a matrix beyond the table, one line each."""
    told = []
    details = matrix.details
    if unreadable := details.get("items_with_unreadable_image"):
        told.append(
            f"{unreadable} image(s) cannot be read and count as missing; first: {details['unreadable_images'][0]}"
        )
    if addresses := details.get("items_with_address_only"):
        told.append(
            f"{addresses} item(s) have the address of an image but no file: fetch it with llmemf features images"
        )
    for key, other in (("items_with_title_only", "LLM text"), ("items_with_llm_text_only", "title")):
        if count := details.get(key):
            told.append(f"{count} item(s) have no {other} and are encoded from the rest alone")
    if unknown := details.get("items_with_text_but_no_word_of_the_vocabulary"):
        told.append(f"{unknown} item(s) have a text without any word that another item has; they count as missing")
    if empty := details.get("items_with_text_but_no_token"):
        told.append(f"{empty} item(s) have a text without any token; they count as missing")
    if details.get("effective_rank", matrix.width) < matrix.width:
        told.append(f"only {details['effective_rank']} of {matrix.width} columns carry something, the others are zero")
    return told
