"""How a Ray is reached and left: what it reads when it is imported, the token by which a cluster knows its users, and its end."""

from __future__ import annotations

import gc
import os
import secrets
import subprocess
import sys
import warnings
from pathlib import Path

from llmemf.errors import InputError

ROOT = Path(__file__).resolve().parent.parent.parent
REFUSALS = ("AuthToken", "AuthenticationError")
SETTINGS = {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}
ASK_HEAD = """
import sys
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient
GcsClient(address=canonicalize_bootstrap_address_or_die(sys.argv[1])).get_all_node_info(timeout=10)
"""
"""A program that asks the head of a cluster for its nodes, by Ray's private API; Ray prints its refusal where it wants a token."""


def set_environment(address: str | None) -> None:
    """Settings that Ray reads when it is imported.

    Args:
        address: of a cluster; None for a Ray that is started on this machine.
    """
    for name, value in SETTINGS.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore", module="ray")
    set_token(address)


def python_path() -> str:
    """PYTHONPATH of processes that must import this checkout and no other copy."""
    return os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")]))


def set_token(address: str | None) -> None:
    """Choose whether Ray uses a token; before Ray is imported, since it reads this once.

    A sender of tokens and a cluster without one connect, but nothing starts there. So a cluster is asked first.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if not address:
        os.environ["RAY_AUTH_MODE"] = "token"
        # Its own token: one that Ray leaves in the home directory would be asked for by every later cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if os.environ.get("RAY_AUTH_TOKEN") or file.exists():
        os.environ["RAY_AUTH_MODE"] = "token" if asks_for_token(address) else "disabled"


def asks_for_token(address: str) -> bool:
    """Whether a cluster refuses those who come without a token."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK_HEAD, address],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, "RAY_AUTH_MODE": "disabled"},
        text=True,
    )
    try:
        # Ray tries again for long; its first line says enough.
        return any(word in line for line in process.stdout or () for word in REFUSALS)
    finally:
        process.kill()
        process.communicate()


def refused(address: str, reason: str) -> InputError:
    """The error for a cluster that does not let us in."""
    reason = " ".join(reason.split())
    if any(word in reason for word in REFUSALS):
        return InputError(
            f"the Ray cluster at {address} asks for its token: copy ~/.ray/auth_token from its head to the same place here, "
            "or name the file in RAY_AUTH_TOKEN_PATH"
        )
    return InputError(f"the Ray cluster at {address} cannot be joined: {reason[-600:]}")


def leave_ray() -> None:
    """Leave a cluster, or end the Ray of this process.

    Ray (2.60) ends the whole process, without a message and with exit code 1, where Python's garbage collection frees an
    object reference between two steps of `ray.shutdown`. So none runs meanwhile.
    """
    import ray

    if ray.is_initialized():
        gc.collect()
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        ray.shutdown()
    finally:
        if was_enabled:
            gc.enable()
