"""What a group is: rows, each trained over the same seeds, in one table.

mlruns/KINDs/NAME/                   KIND.yaml, journal.jsonl, ranks/, tables
mlruns/sweeps/NAME--ROW/             the search of a row, where it has one
mlruns/sweeps/NAME--ROW--seeds/      its configuration over seeds: a grid over `seed`
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field

from llmemf.command_line import command_line
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError
from llmemf.io import write_text
from llmemf.models import model_class
from llmemf.removed import without_removed
from sweeps.core.settings import space_keys
from sweeps.groups.significance import BEST
from sweeps.state.home import Stored, located
from sweeps.state.sweep_record import GROUPS

NOUNS = {"comparison": "system", "ablation": "row", "rerun": "trial", "study": "row"}
"""Kind -> what its rows are called in sentences."""
Outcome = Literal["interrupted", "completed", "incomplete", "failed"]


class Row(BaseModel):
    """One row: a system of a comparison, a variant of LLM-EMF, a trial of a sweep, values of a study."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    title: str = ""
    """As tables write it."""
    model: str
    """The system that it trains."""
    overrides: dict[str, Any] = {}
    """Settings over those that all rows share."""
    space: dict[str, Any] = {}
    """What its search varies, where the group has one."""
    problem: str = ""
    """Why it cannot run here, "" where it can."""
    section: str = ""
    """Heading of the part of the table that it stands in."""
    varied: dict[str, Any] = {}
    """The settings that make it this row, as tables show them."""
    objective: float | None = None
    """Its objective in the sweep that it comes from."""

    @property
    def shown(self) -> dict[str, Any]:
        """`varied` without settings that go back to their neutral value None."""
        return {key: value for key, value in self.varied.items() if value is not None}


class Group(Stored):
    """All that a group was started with: KIND.yaml in its folder."""

    kind: Literal["comparison", "ablation", "rerun", "study"]
    rows: list[Row]
    """In the order of the table."""
    seeds: list[int]
    """Seeds of each configuration; a search has another one."""
    seed: int = Field(0, ge=0)
    """Seed of the searches and of their trials."""
    reference: str = BEST
    """The row that the others are tested against, named beforehand, or `best`."""
    test: Literal["every row", "winner"] = "every row"
    """Which rows are tested: each after its training, or only the one that validation chooses at the end."""
    winner: str = ""
    """The row that validation chose."""
    fixed: dict[str, Any] = Field({})
    """Settings that all rows share where their systems have them."""
    space: dict[str, Any] = Field({})
    """What every row searches, without what it fixes itself; empty where each system has a space of its own."""
    constraints: list[str] = Field([])
    trials: int | None = Field(None, ge=1)
    """Trials of each row's search at most (a smaller grid without ranges is run whole); None where rows are not searched."""
    search: Literal["auto", "optuna", "grid", "random"] = "optuna"
    """A group that was stored without it was searched by Optuna."""
    scheduler: Literal["asha", "none"] = "asha"
    grace_period: int = 3
    reduction_factor: float = 3
    assignments: list[str] = Field([])
    """`--set`, as it was typed."""
    origin: str = ""
    """Where the shared configuration comes from: a sweep and its best trial."""
    facts: dict[str, Any] = Field({})
    """What one kind alone must remember."""
    status: Literal["planned", "running"] | Outcome = "planned"
    notices: list[str] = Field([], exclude=True)
    """What a user should read before it starts."""

    @property
    def names(self) -> list[str]:
        return [row.name for row in self.rows]

    def row(self, name: str) -> Row:
        return next(row for row in self.rows if row.name == name)

    def config_of(self, row: Row) -> dict[str, Any]:
        """The settings of a row that are not searched, without `model` and `seed`."""
        known = model_class(row.model).config_class.model_fields
        values = {**self.fixed, **row.overrides}
        return {key: value for key, value in values.items() if key in known and key not in space_keys(row.space)}

    @property
    def command(self) -> str:
        """The command that makes it."""
        return "compare" if self.kind == "comparison" else self.kind

    @property
    def model(self) -> str:
        """The system that all rows train, "" where they train several."""
        models = {row.model for row in self.rows}
        return models.pop() if len(models) == 1 and self.kind != "comparison" else ""

    @property
    def source(self) -> Path | None:
        """The folder of the sweep whose trials are the rows, where they are trials."""
        return Path(self.storage) / "sweeps" / self.facts["sweep"] if "sweep" in self.facts else None

    @property
    def noun(self) -> str:
        return NOUNS[self.kind]

    @property
    def reference_name(self) -> str:
        """What the row is called that the others are tested against, where one was named beforehand."""
        return "full model" if self.kind == "ablation" else "reference"

    @property
    def file(self) -> Path:
        return root_of(self.kind, Path(self.storage)) / self.name / f"{self.kind}.yaml"

    def save(self) -> None:
        """Write KIND.yaml; it appears whole or not at all."""
        content = json.loads(self.model_dump_json(exclude_defaults=True))
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
        write_text(self.file, text)

    @classmethod
    def load(cls, kind: str, folder: Path) -> Group:
        """Read a group; storage and database are those of the folder where it lies now, see `located`.

        Raises:
            InputError: there is none, or it was damaged or renamed.
        """
        path = folder / f"{kind}.yaml"
        values = read_yaml(path)
        if values.get("name", folder.name) != folder.name:
            raise InputError(
                f"{path} is of {values.get('name')!r}: its sweeps have that name, so give its folder that name"
            )
        values = located(values, folder)
        if "kind" not in values:
            values = _of_former_version(kind, values, str(path))
        if kind == "rerun":
            values.setdefault("origin", f"the best trials of sweep {values['facts']['sweep']}")
        return build_config(cls, values, where=str(path))

    def sweep_name(self, row: str, step: str = "search") -> str:
        return f"{self.name}--{row}" + ("--seeds" if step == "seeds" else "")

    def sweep_folder(self, row: str, step: str = "search") -> Path:
        return Path(self.storage) / "sweeps" / self.sweep_name(row, step)

    def resume_command(self) -> str:
        """The command line that continues it, as it can be typed here."""
        return command_line(self.command, "--resume", "--name", self.name, storage=self.storage)


def root_of(kind: str, storage: Path) -> Path:
    """The folder of all groups of a kind."""
    return storage / next(folder for folder, known in GROUPS.items() if known == kind)


def _of_former_version(kind: str, values: dict[str, Any], where: str) -> dict[str, Any]:
    """Fields of a group from a file that was written when each kind had a file format of its own."""
    values = {"kind": kind, **values}
    for section in {"fixed", "space"} & values.keys():
        values[section] = without_removed(values[section], where, "llm_emf" if kind == "ablation" else "")
    if kind == "comparison":
        values["trials"] = values.pop("trials_per_model", 20)
        values["rows"] = [{"name": name, "model": name} for name in values.pop("models")]
    elif kind == "ablation":
        values["trials"], values["reference"] = values.pop("tune", None), values.pop("full", "")
        values["facts"] = {key: values.pop(key, None) for key in ("encoders", "own")}
        values["rows"] = [{"name": name, "model": "llm_emf"} for name in values.pop("rows")]
    else:
        values["facts"] = {"sweep": values.pop("sweep"), "earlier_looks": values.pop("earlier_looks", 0)}
        values.pop("asked", None)
        model, configurations, varied, objectives = map(values.pop, ("model", "configurations", "shown", "objectives"))
        values["test"], values["rows"] = "winner", []
        for name in values.pop("trials"):
            row = {"name": name, "title": name, "model": model, "varied": varied[name], "objective": objectives[name]}
            values["rows"].append({**row, "overrides": without_removed(configurations[name], where, model)})
    return values
