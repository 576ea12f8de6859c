"""The command itself, as a user runs it from a checkout."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import typer.main
from typer.testing import CliRunner

from llmemf.command_line import command_line
from sweeps.cli.main import app, main, run_script

ROOT = Path(__file__).resolve().parents[3]


def run(*arguments, folder, script=None):
    environment = {key: value for key, value in os.environ.items() if key != "LLMEMF_DATA_ROOT"}
    environment["PYTHONPATH"] = str(ROOT)
    command = [sys.executable, *(["-c", script] if script else [str(ROOT / "sweeps" / "grid.py")]), *arguments]
    return subprocess.run(
        command, check=False, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


@pytest.mark.slow
def test_dry_run_starts_and_writes_nothing(tmp_path):
    script = f"""
import json, runpy, sys
sys.argv = ["grid.py", "--scenario", "movie_book", "--dry-run", "--trials", "20"]
sys.path.insert(0, {str(ROOT / "sweeps")!r})
try:
    runpy.run_path({str(ROOT / "sweeps" / "grid.py")!r}, run_name="__main__")
except SystemExit as end:
    assert not end.code, end.code
loaded = [name for name in ("ray", "mlflow", "optuna") if name in sys.modules]
print(json.dumps({{"loaded": loaded}}))
"""
    result = run(folder=tmp_path, script=script)
    assert result.returncode == 0, result.stderr
    found = json.loads(result.stdout.splitlines()[-1])
    assert found == {"loaded": []}
    assert not list(tmp_path.iterdir())
    words = " ".join(result.stdout.replace("│", " ").split())
    for phrase in (
        "There is no data for movie_book",
        "It is called sample",
        "data import windows",
        "features offline movie_book",
        "20 trials",
        "grid points dropped (alpha + beta <= 1)",
        "trial lr l2 alpha beta lambda1 lambda2 t01",
        "fixed batch_size=256 patience=2",
        "sqlite:///",
        "nothing was started or written",
    ):
        assert phrase in words, phrase


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scenario", "movie_bok"], "error: unknown scenario 'movie_bok': did you mean 'movie_book'?"),
        (["--scenario", "movie_book", "--set", "lambda_1=0.3"], "error: --set: unknown key 'lambda_1': did you mean 'lambda1'?"),
        (["--scenario", "movie_book", "--cpus-per-trial", "999", "--dry-run"], "lower --cpus-per-trial"),
        (["--scenario", "movie_book", "--resume"], "error: --resume: no sweep of scenario 'movie_book'"),
        (["--resume"], "error: --resume: no sweep in "),
        (["--extend", "5", "--name", "x"], "error: --extend: there is no sweep 'x'"),
        (["--continue", "--scenario", "sample"], "error: --continue needs --name"),
        (["--resume", "--extend", "5"], "error: --resume, --extend and --continue exclude each other"),
        (["--scenario", "sample", "--gpu-price", "3"], "error: --gpu-price and --json belong to --estimate"),
        (["--resume", "--set", "lr=1"], "error: --resume continues a sweep as it was started: leave out --set"),
        (["--scenario", "sample", "--set", "cuda_graphs=true"], "error: --set: cuda_graphs was removed: leave it out"),
        (["--scenario", "movie_book", "--search", "grid", "--allow-sample"], "error: --search grid has 6,336 points here: give --yes"),
        (["--scenario", "movie_book"], "error: there is no data for movie_book in "),
        (["--scenario", "sample", "--name", "a" * 101], "error: --name 'aaaaaaaaaaaaaaaaaaaa'... has 101 characters"),
        (["--scenario", "sample", "--cpus-per-trial", "nan"], "error: --cpus-per-trial nan: a number is expected"),
        (["--scenario", "sample", "--seed", str(2**32)], "seed = 4294967296: Input should be less than 4294967296"),
        (["--scenario", "sample", "--reduction-factor", "1"], "error: --reduction-factor: "),
        (["--scenario", "sample", "--tracking-uri", "http://h:99999"], "error: --tracking-uri http://h:99999: an address"),
        (["--scenario", "sample", "--time-budget", "soon"], "error: --time-budget soon: a time like 90m, 2h, 1h30m or 7d"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line_and_exit_code_2(project_folder, monkeypatch, capsys, arguments, message):
    monkeypatch.setattr(sys, "argv", ["grid.py", *arguments])
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit) as end:
        run_script("grid.py")
    error = capsys.readouterr().err
    assert end.value.code == 2 and message in error and error.count("\n") == 1
    assert not list(project_folder.iterdir())


@pytest.mark.slow
def test_places_that_cannot_be_used_are_told_at_once(tmp_path):
    (tmp_path / "mlruns").write_text("a file")
    result = run("--scenario", "sample", folder=tmp_path)
    assert (
        result.returncode == 2 and "mlruns is a file: name a folder" in result.stderr and result.stderr.count("\n") == 1
    )
    result = run("--scenario", "sample", "--storage", "x", "--tracking-uri", "http://127.0.0.1:9", folder=tmp_path)
    assert result.returncode == 2 and "no tracking server answers at http://127.0.0.1:9" in result.stderr
    assert not (tmp_path / "data").exists()


def test_help_shows_the_default_of_every_option():
    def commands(command):
        parts = getattr(command, "commands", {})
        return [one for part in parts.values() for one in commands(part)] if parts else [command]

    lacking = []
    for command in commands(typer.main.get_command(app)):
        context = command.make_context(command.name, [], resilient_parsing=True)
        for option in command.params:
            record = option.get_help_record(context)
            if record and record[0].startswith("--") and not option.is_flag and not option.multiple:
                lacking += [(command.name, option.name)] * ("default:" not in record[1] and "required" not in record[1])
    assert not lacking
    for words in ([], ["data"], ["features"]):
        listed = CliRunner().invoke(app, [*words, "--help"], terminal_width=80).stdout.partition("Commands:")[2]
        assert listed and "..." not in listed, "a command's first sentence is cut off"
    shown = CliRunner().invoke(app, ["sweep", "--help"], terminal_width=80).stdout
    assert "[default: llm_emf]" in shown and max(map(len, shown.splitlines())) <= 80


def test_the_help_that_a_mistake_names_can_be_typed_there(project_folder, monkeypatch, capsys):
    grid = ROOT / "sweeps" / "grid.py"
    for argv, typed in (
        ([str(grid), "--trails", "3"], f"{grid} --help`"),
        (["/somewhere/llmemf", "sweep", "--trails", "3"], f"{command_line('sweep', '--help')}`"),
    ):
        monkeypatch.setattr(sys, "argv", argv)
        with pytest.raises(SystemExit):
            run_script("grid.py") if argv[0] == str(grid) else main()
        assert typed in capsys.readouterr().err


def test_who_wrote_a_scenario_file_is_told_how_tables_are_prepared(project_folder, monkeypatch, capsys):
    (project_folder / "data").mkdir()
    (project_folder / "data" / "shop.yaml").write_text("trials: 7\n")
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with pytest.raises(SystemExit):
        main(["sweep", "--scenario", "shop"])
    assert "data prepare table ORDERS.csv" in capsys.readouterr().err
