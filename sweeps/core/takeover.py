"""A stored sweep or group at another place than before: moved, copied, or with MLflow or the data somewhere else."""

from __future__ import annotations

from pathlib import Path

from llmemf.errors import InputError
from sweeps.state.home import Stored, is_copy, is_elsewhere, new_identity
from sweeps.tracking.addresses import absolute_uri


def take_over(record: Stored, flag: str, tracking_uri: str | None, data_root: Path | None, *, named: bool) -> str:
    """Make a record that of the place where it lies now; it is stored when the sweep or group opens.

    What was moved keeps its runs in MLflow. What was copied gets an identity of its own, and so runs of its own.

    Args:
        flag: the option that asked for it.
        tracking_uri, data_root: new ones, where they are given.
        named: whether the user named it; what lies elsewhere is taken over by its name alone.

    Returns:
        what has changed, in one line; "" where nothing has.

    Raises:
        InputError: it lies elsewhere than before and was not named.
    """
    said = []
    if is_elsewhere(record):
        if not named:
            raise InputError(
                f"{flag}: {record.folder} was copied or moved from {record.home}: give --name {record.name} to continue it "
                "here"
            )
        record.taken_over = {"folder": record.home}
        record.moved_from = list(dict.fromkeys([*record.moved_from, record.home]))
        if is_copy(record):
            record.taken_over["identity"] = record.identity
            record.identity = new_identity()
            said.append(f"a copy of {record.home}, continued as one of its own with runs of its own in MLflow")
        else:
            said.append(f"moved from {record.home}")
    given = {
        "tracking_uri": tracking_uri and absolute_uri(tracking_uri, Path(record.storage)),
        "data_root": data_root and str(data_root.resolve()),
    }
    for field, value in given.items():
        if value and value != getattr(record, field):
            record.taken_over[field] = getattr(record, field)
            setattr(record, field, value)
    if record.taken_over:
        said += [f"MLflow at {record.tracking_uri}", f"data in {record.data_root}"]
    return "; ".join(said)
