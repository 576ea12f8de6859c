"""Images of a scenario's items on disk: `images/`, the log of what happened, and `images.parquet` made from it.

images/000123.jpg     the image of item 123; items with one address share the file of the first of them
images_log.jsonl      one line per item and outcome; the latest of an item counts while its address stays the same
images.parquet        item, path (relative to the scenario's folder, "" where none), status, address
"""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pandas as pd

from llmemf.io import write_with
from llmemf.scenarios.scenario import Scenario

TABLE, LOG, FOLDER = "images.parquet", "images_log.jsonl", "images"
OK, NO_ADDRESS, NOT_FETCHED = "ok", "no address", "not fetched"


def image_name(item: int, suffix: str) -> str:
    """Path of an item's image, relative to the scenario's folder."""
    return f"{FOLDER}/{item:06d}{suffix}"


def latest_outcomes(records: list[dict]) -> dict[int, dict]:
    """The latest record of every item."""
    return {record["item"]: record for record in records}


def is_kept(folder: Path, record: dict | None) -> bool:
    """Whether a record tells of an image that lies there as it was written."""
    if not record or record["status"] != OK:
        return False
    try:
        return (folder / record["path"]).stat().st_size == record["bytes"]
    except OSError:
        return False


def image_table(scenario: Scenario, outcomes: dict[int, dict], absent: str) -> pd.DataFrame:
    """One row per item; items without an outcome get the status `absent`, or NO_ADDRESS where they name none."""
    addresses = scenario.items.image.astype(str).str.strip().tolist()
    rows = []
    for item, address in enumerate(addresses):
        record = outcomes.get(item)
        if record:
            rows.append((item, record["path"], record["status"], record["address"]))
        else:
            rows.append((item, "", absent if address else NO_ADDRESS, address))
    return pd.DataFrame(rows, columns=["item", "path", "status", "address"])


def write_image_table(scenario: Scenario, table: pd.DataFrame) -> None:
    """Write `images.parquet`, whole or not at all."""
    write_with(scenario.folder / TABLE, lambda path: table.to_parquet(path, index=False))


def counts_by_domain(scenario: Scenario, table: pd.DataFrame) -> dict[str, Counter]:
    """How many items of each domain have which status."""
    parts = (slice(0, scenario.num_x), slice(scenario.num_x, None))
    return {domain: Counter(table.status[part]) for domain, part in zip(scenario.domains, parts)}
