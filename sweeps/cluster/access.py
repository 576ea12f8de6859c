"""The token by which a Ray cluster knows its users: which sweeps send one, and what to say to a refusal."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from pathlib import Path

from llmemf.errors import InputError
from sweeps.cluster.ray_private import ASK_HEAD

REFUSALS = ("AuthToken", "AuthenticationError")


def set_token(ray_address: str | None) -> None:
    """Choose whether Ray uses a token; before Ray is imported, since it reads this once.

    A sender of tokens and a cluster without one connect, but no trial starts there. So a cluster is asked first.
    """
    if "RAY_AUTH_MODE" in os.environ:
        return
    if not ray_address:
        os.environ["RAY_AUTH_MODE"] = "token"
        # Its own token: one that Ray leaves in the home directory would be asked for by every later cluster.
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))
        return
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", Path.home() / ".ray" / "auth_token"))
    if os.environ.get("RAY_AUTH_TOKEN") or file.exists():
        os.environ["RAY_AUTH_MODE"] = "token" if asks_for_token(ray_address) else "disabled"


def asks_for_token(ray_address: str) -> bool:
    """Whether a cluster refuses those who come without a token."""
    process = subprocess.Popen(
        [sys.executable, "-c", ASK_HEAD, ray_address],
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
