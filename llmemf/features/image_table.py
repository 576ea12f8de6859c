"""Images of a scenario's items on disk: `images/`, the log of all outcomes, and `images.parquet` made from it.

images/000123.jpg     the image of item 123; items with one address share the file of the first of them
images_log.jsonl      one line per item and outcome; the last line of an item counts while its address stays the same
images.parquet        item, path (relative to the scenario's folder, "" where there is none), status, address
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import pandas as pd

from llmemf.append_only_log import AppendOnlyLog
from llmemf.features.image_content import ImageFacts
from llmemf.io import atomic_file, storage_errors
from llmemf.scenarios.scenario import Scenario

TABLE, LOG, FOLDER = "images.parquet", "images_log.jsonl", "images"
OK, NOT_FETCHED = "ok", "not fetched"


class ImageStore:
    """The images of one scenario, open for one process at a time; a context manager.

    Attributes:
        outcomes: the latest record of every item that has one.

    Raises:
        InputError: another process has it open, or the scenario's folder cannot be written.
    """

    def __init__(self, scenario: Scenario) -> None:
        assert scenario.folder is not None
        self.folder = scenario.folder
        with storage_errors(self.folder / FOLDER):
            (self.folder / FOLDER).mkdir(exist_ok=True)
        self._log = AppendOnlyLog(self.folder / LOG, durable=False, lock=True)
        self.outcomes: dict[int, dict[str, Any]] = {int(record["item"]): record for record in self._log.read()}

    def has_image(self, item: int) -> bool:
        """Whether the item's image is still there in its full size."""
        record = self.outcomes.get(item)
        if not record or record["status"] != OK:
            return False
        try:
            return (self.folder / record["path"]).stat().st_size == record["bytes"]
        except OSError:
            return False

    def keep(self, items: Sequence[int], address: str, data: bytes, facts: ImageFacts, path: str | None = None) -> None:
        """Write the image of an address, unless it is there already, and note it for all items of the address."""
        path = path or f"{FOLDER}/{items[0]:06d}{facts.suffix}"
        target = self.folder / path
        if not target.is_file() or target.read_bytes() != data:
            with atomic_file(target) as temporary:
                temporary.write_bytes(data)
        self.note(items, address, OK, path=path, bytes=len(data), width=facts.width, height=facts.height)

    def note(
        self, items: Sequence[int], address: str, status: str, path: str = "", transient: bool = False, **facts: int
    ) -> None:
        """Note an outcome for all items of an address; only what is new goes to the log."""
        shared = {"path": path, "status": status, "address": address, "transient": transient, **facts}
        records: list[dict[str, Any]] = [{"item": item} | shared for item in items]
        self._log.append([record for record in records if self.outcomes.get(record["item"]) != record])
        self.outcomes.update((record["item"], record) for record in records)

    def write_table(self, addresses: Sequence[str], *, no_address: str = "no address") -> pd.DataFrame:
        """Write `images.parquet`, whole or not at all.

        Args:
            addresses: of every item, "" where it names none.
            no_address: status of an item without address and record; with an address it is `NOT_FETCHED`.

        Returns:
            the table: one row per item.
        """
        rows = [
            {"path": "", "status": NOT_FETCHED if address else no_address, "address": address}
            | self.outcomes.get(item, {})
            | {"item": item}
            for item, address in enumerate(addresses)
        ]
        table = pd.DataFrame(rows, columns=["item", "path", "status", "address"])
        with atomic_file(self.folder / TABLE) as temporary:
            table.to_parquet(temporary, index=False)
        return table

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        self._log.close()
