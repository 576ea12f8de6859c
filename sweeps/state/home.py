"""Whose a sweep or group is: the identity that its runs in MLflow carry, and the folder that owns them.

A name says nothing: two people with two storage folders and one MLflow may use the same. The record of a sweep or group
therefore has an identity, and says in which folder it was run last. A folder that was copied or moved is not that folder: it
owns nothing outside itself until a command takes it over by its name (`sweeps.core.resume`).
"""

from __future__ import annotations

import uuid
from abc import abstractmethod
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from llmemf.config import read_yaml
from llmemf.errors import InputError

NAMESPACE = uuid.UUID("5f0c1c46-55b3-4b3a-9d0b-3b1f6f6c2d6e")


def new_identity() -> str:
    """An identity that nobody else has."""
    return uuid.uuid4().hex


class Stored(BaseModel):
    """What the records of sweeps and groups have in common."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    name: str
    requested: str
    """The scenario that was asked for."""
    scenario: str
    """The scenario that is used: the same, or `sample`."""
    data_root: str
    storage: str
    tracking_uri: str
    cpus_per_trial: float = 1
    gpus_per_trial: float = 0
    concurrency: int | None = None
    ray_address: str | None = None
    fresh_workers: bool = False
    """Whether every trial starts a process of its own."""
    fingerprint: str = ""
    created: str = ""
    identity: str = Field(default_factory=new_identity)
    """Which sweep or group it is, wherever it lies and whatever its name is: a tag of its runs in MLflow."""
    moved_from: list[str] = []
    """Folders in which it was run before."""
    home: str = Field("", exclude=True)
    """The folder in which it was run last."""
    taken_over: dict[str, str] = Field({}, exclude=True)
    """The earlier values of what this command replaces, by field; kept in the event log."""

    @property
    @abstractmethod
    def file(self) -> Path:
        """Where the record is stored."""

    @property
    def folder(self) -> Path:
        return self.file.parent


def former_identity(name: str, created: str) -> str:
    """The identity of a sweep or group of a version that had none: it follows from its name and its microsecond."""
    return uuid.uuid5(NAMESPACE, f"{name} {created}").hex


def is_former(record: Stored) -> bool:
    """Whether it began without an identity: its oldest runs may have their name alone."""
    return record.identity == former_identity(record.name, record.created)


def is_elsewhere(record: Stored) -> bool:
    """Whether its folder was copied or moved since it was run last."""
    return record.home not in ("", str(record.folder))


def located(values: dict[str, Any], folder: Path) -> dict[str, Any]:
    """Stored values of a record as they are in the folder where the record lies now.

    The storage folder becomes the one around it, and a database that lay in the storage folder lies there still. A link
    leads to the sweep of the other storage folder, and a link that was left at the old path leads here.
    """
    if not all(isinstance(values.get(key), str) for key in ("name", "storage", "tracking_uri")):
        return values
    folder = folder.absolute().parents[1].resolve() / folder.parent.name / folder.name
    owner, home = folder.parents[1], Path(values["storage"]) / folder.parent.name / values["name"]
    if home != folder and home.resolve() == folder.resolve():
        if home.parents[1].resolve() == owner:
            home = folder
        else:
            folder, owner = home, home.parents[1]
    uri, inside = values["tracking_uri"], f"sqlite:///{home.parents[1]}/"
    if home != folder and uri.startswith(inside):
        uri = f"sqlite:///{owner / uri.removeprefix(inside)}"
    place = {"name": folder.name, "storage": str(owner), "tracking_uri": uri, "home": str(home)}
    return {**values, "identity": _identity(values), **place}


def is_copy(record: Stored) -> bool:
    """Whether the sweep or group that it was copied from is still where it was."""
    original = Path(record.home) / record.file.name
    try:
        return original.exists() and _identity(read_yaml(original)) == record.identity
    except InputError:
        return True


def _identity(values: dict[str, Any]) -> str:
    name, created = values.get("name", ""), values.get("created", "")
    return values.get("identity") or (former_identity(name, created) if created else new_identity())
