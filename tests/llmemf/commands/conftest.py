"""Fixtures of the tests of commands."""

from __future__ import annotations

import pytest

from llmemf.__main__ import main


@pytest.fixture
def llmemf(tmp_path, monkeypatch, capsys):
    """Run a command line with `tmp_path` as the current directory; gives exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LLMEMF_DATA_ROOT", raising=False)
    monkeypatch.setenv("COLUMNS", "80")

    def run(*arguments: object) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as leaving:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return leaving.value.code, out, err

    return run
