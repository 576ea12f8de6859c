"""Addresses of MLflow's databases and servers."""

from __future__ import annotations

from pathlib import Path

from llmemf.errors import InputError


def absolute_uri(uri: str | None, storage: Path) -> str:
    """The tracking URI with an absolute path: trials and `mlflow ui` run in other folders.

    Raises:
        InputError: MLflow's old file store, which it no longer writes.
    """
    if uri is None:
        return f"sqlite:///{storage / 'mlflow.db'}"
    if uri.startswith("sqlite:///") and not uri.startswith("sqlite:////"):
        return f"sqlite:///{Path(uri.removeprefix('sqlite:///')).resolve()}"
    if "://" not in uri or uri.startswith("file:"):
        raise InputError(
            f"--tracking-uri {uri}: MLflow no longer writes folders; give sqlite:///FILE.db or http://HOST:PORT"
        )
    return uri
