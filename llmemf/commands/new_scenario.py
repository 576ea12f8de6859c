"""Where a new scenario goes, and what its user is told about it: shared by `data import` and `data prepare`."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from llmemf.commands.data_options import DEFAULT_ROOT, DataRoot, hint, say, show
from llmemf.scenarios.names import check_free

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

Overwrite = Annotated[
    bool, typer.Option("--overwrite", help="Replace a scenario of that name, and its features with it.")
]


@dataclass(frozen=True)
class Target:
    """The place of a new scenario."""

    data_root: DataRoot = DEFAULT_ROOT
    overwrite: Overwrite = False
    started: float = field(default_factory=time.perf_counter, init=False)

    def check(self, name: str) -> None:
        """Refuse a name that is taken, before hours of reading.

        Raises:
            InputError: it is.
        """
        if not self.overwrite:
            check_free(name, self.data_root)

    def save(self, scenario: Scenario, image_folder: Path, *others: tuple[str, ...]) -> None:
        """Write a scenario with the images that its items name, show what it is, and name the command that comes next.

        Args:
            others: the words of commands that may come before it.
        """
        from llmemf.commands.scenario_view import summary
        from llmemf.scenarios.audit import absent_domains
        from llmemf.scenarios.images import is_address, save_with_images

        folder = save_with_images(scenario, self.data_root, image_folder, overwrite=self.overwrite)
        say(f"{scenario.name} written to {folder} in {time.perf_counter() - self.started:.1f} s")
        show(summary(scenario))
        for note in absent_domains(scenario):
            say(f"note: {note}")
        name, items = scenario.name, scenario.items
        has_text = bool((items[["title", "description"]] != "").any(axis=None))
        has_images = any(image and not is_address(image) for image in items["image"])
        for words in (("data", "audit", name), *others):
            say(f"also: {hint(self.data_root, *words)}")
        if has_text or has_images:
            say(f"next: {hint(self.data_root, 'features', 'offline', name)}")
        else:
            say("note: the items have neither text nor stored images: a sweep uses their ids alone")
            say(f"next: {hint(self.data_root, 'sweep', '--scenario', name)}")
