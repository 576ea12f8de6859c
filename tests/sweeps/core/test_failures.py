import errno
import pickle
from types import SimpleNamespace

import pytest

from llmemf.errors import StorageError
from sweeps.core.failures import failure_kind, last_error, read_error
from sweeps.core.trial import NodeUnfit

OWN = "Failure # 1 (occurred at x)\nTraceback (most recent call last):\n  File x\nllmemf.training.NonFiniteLoss: nan\n"
MEMORY = "ray.exceptions.OutOfMemoryError: Task was killed due to the node running low on memory.\n"


def trial(trace=None, exception=None, folder=None):
    """A trial as Tune knows it, with the files of its error where it has one."""
    found = SimpleNamespace(error_file=None, pickled_error_file=None)
    if trace is not None:
        found.error_file = str(folder / "error.txt")
        (folder / "error.txt").write_text(trace)
    if exception is not None:
        found.pickled_error_file = str(folder / "error.pkl")
        (folder / "error.pkl").write_bytes(pickle.dumps(exception))
    return found


def died():
    from ray.exceptions import ActorDiedError

    return ActorDiedError()


def task_error(cause):
    from ray.exceptions import RayTaskError

    return RayTaskError("train", f"Traceback\n{type(cause).__name__}: {cause}", cause)


def raised(error):
    """What a trial's process raised, as Tune keeps it."""
    return task_error(
        error
    ), f"Traceback\n  File x\n    raise y\n{type(error).__module__}.{type(error).__name__}: {error}\n"


def storage(number):
    return StorageError.of("/x/state.pt", OSError(number, ""))


@pytest.mark.parametrize(
    ("exception", "trace", "kind"),
    [
        (task_error(ValueError("x")), "Traceback\nValueError: x\n", "error"),
        (None, OWN, "error"),
        (died(), "The actor died unexpectedly before finishing this task.\n", "lost"),
        (None, "", "lost"),
        (task_error(NodeUnfit("x")), "Traceback\nsweeps.trial.NodeUnfit: /x is not there on host\n", "lost"),
        (*raised(RuntimeError("ray.exceptions.ObjectLostError: gone")), "lost"),
        (task_error(ValueError("x")), "Traceback\nsweeps.worker.StaleWorker: 900 MiB of memory are left\n", "stale"),
        (task_error(RuntimeError("x")), "Traceback\ntorch.OutOfMemoryError: CUDA out of memory. Tried\n", "memory"),
        (*raised(MemoryError()), "memory"),
        (died(), MEMORY, "memory"),
        (*raised(RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be")), "device"),
        (*raised(RuntimeError("CUDA error: all CUDA-capable devices are busy or unavailable")), "device"),
        (*raised(RuntimeError("CUDA error: uncorrectable ECC error encountered")), "device"),
        (*raised(RuntimeError("CUDA error: unspecified launch failure")), "device"),
        (*raised(RuntimeError("No CUDA GPUs are available: no CUDA-capable device is detected")), "device"),
        (*raised(RuntimeError("CUDA error: device-side assert triggered")), "error"),
        (*raised(OSError(errno.ENOSPC, "No space left on device")), "disk"),
        (died(), "OSError: [Errno 28] No space left on device", "disk"),
        *[(*raised(storage(n)), "disk") for n in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EFBIG, errno.EACCES)],
        *[(*raised(storage(number)), "storage") for number in (errno.EIO, errno.ESTALE)],
        (*raised(RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 576 vs 534")), "disk"),
        (*raised(ValueError("checkpoint cannot be read: Input/output error")), "storage"),
        (task_error(ValueError("x")), 'Traceback\n    raise MemoryError("source")\nValueError: x\n', "error"),
    ],
)
def test_why_a_trial_failed(exception, trace, kind):
    assert failure_kind(exception, trace) == kind


def test_the_error_of_a_trial_is_its_last_one_without_colours(tmp_path):
    trace = "Failure # 1 (a)\nTraceback\nValueError: old\nFailure # 2 (b)\n\x1b[36mTraceback\x1b[0m\nKeyError: new\n"
    exception, text = read_error(trial(trace=trace, exception=ValueError("new"), folder=tmp_path))
    assert type(exception) is ValueError
    assert text == "Failure # 2 (b)\nTraceback\nKeyError: new\n"


def test_an_error_without_readable_files_is_still_one(tmp_path):
    assert read_error(trial()) == (None, "")
    subject = trial(trace=OWN, exception=1, folder=tmp_path)
    (tmp_path / "error.pkl").write_bytes(b"this cannot be unpickled")
    assert read_error(subject) == (None, OWN)
    assert read_error(trial(exception=ValueError("x"), folder=tmp_path))[1] == "x"


@pytest.mark.parametrize(
    ("trace", "expected"),
    [
        ("Traceback\n  File\nValueError: bad: value\n", "ValueError: bad: value"),
        ("a\nllmemf.errors.InputError: text is missing\nsome more\n", "InputError: text is missing"),
        ("Failure # 1\nThe actor died unexpectedly\n", "The actor died unexpectedly"),
        ("", "no trace was kept"),
        (f"ValueError: {'x' * 900}", f"ValueError: {'x' * 900}"[:300]),
    ],
)
def test_one_line_of_a_trace(trace, expected):
    assert last_error(trace) == expected
