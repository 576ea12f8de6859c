"""The command itself, as a user runs it from a checkout."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

from llmemf.models import model_class
from sweeps.cli.main import run_script

ROOT = Path(__file__).resolve().parents[3]


@pytest.fixture
def compare(project_folder, monkeypatch, capsys):
    """Runs the command in this process; gives exit code, output and errors."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare.py", *arguments])
        with pytest.raises(SystemExit) as end:
            run_script("compare.py")
        return end.value.code or 0, *capsys.readouterr()

    return run


def test_a_dry_run_names_what_cannot_run_and_writes_nothing(compare, project_folder):
    tiny.make_scenario().save(project_folder / "data")
    code, out, _ = compare(
        "--scenario", "tiny", "--models", "llm_emf,sasrec,popularity", "--trials-per-model", "3", "--dry-run"
    )
    assert code == 0 and not (project_folder / "mlruns").exists()
    words = " ".join(out.split())
    status = {model: model_class(model).status for model in ("popularity", "sasrec", "llm_emf")}
    for phrase in (
        "3: Popularity, SASRec, LLM-EMF",
        "at most 3 trials",
        "then 5 seeds of the chosen configuration",
        f"Popularity {status['popularity']} 2 1 count",
        f"SASRec {status['sasrec']} 3 5 {', '.join(model_class('sasrec').search_space)}",
        f"LLM-EMF {status['llm_emf']} cannot run: scenario 'tiny' has no text features",
        "5 trials of searches, 6 trials over seeds",
        "nothing was started or written",
    ):
        assert phrase in words, phrase


@pytest.mark.slow
def test_a_dry_run_loads_nothing_heavy_but_torch(tmp_path):
    script = f"""
import json, runpy, sys
sys.argv = ["compare.py", "--scenario", "movie_book", "--models", "sasrec", "--dry-run"]
try:
    runpy.run_path({str(ROOT / "sweeps" / "compare.py")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
print(json.dumps([name for name in ("ray", "mlflow", "optuna") if name in sys.modules]))
"""
    result = subprocess.run(
        [sys.executable, "-c", script], check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert result.returncode == 0, result.stderr
    assert json.loads(result.stdout.splitlines()[-1]) == []
    assert "There is no data for movie_book" in result.stdout and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "sample", "--models", "sasrek"], "error: --models: unknown system 'sasrek': did you mean 'sasrec'?"),
        (["--scenario", "movie_bok"], "error: unknown scenario 'movie_bok'"),
        (["--scenario", "sample", "--set", "lr=-1"], "error: --set: lr = -1"),
        (["--scenario", "sample", "--models", "sasrec", "--set", "heads=3", "--dry-run"], "error: settings: heads = 3"),
        (["--scenario", "sample", "--time-budget", "soon"], "error: --time-budget soon"),
        (["--resume"], "error: --resume: no comparison in "),
        (["--resume", "--continue"], "error: --resume and --continue exclude each other"),
        (["--resume", "--seeds", "3"], "error: --resume continues a comparison as it was started: leave out --seeds"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(compare, project_folder, arguments, message):
    code, _, error = compare(*arguments)
    assert code == 2 and message in error and error.count("\n") == 1
    assert not list(project_folder.iterdir())
