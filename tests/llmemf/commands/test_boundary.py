"""Where commands begin and end: their output, `~` in their paths, and how mistakes end them."""

import errno
import os
from pathlib import Path
from typing import Annotated

import pytest
import typer
from typer.testing import CliRunner

from llmemf.commands.boundary import App, Output, run_app
from llmemf.errors import InputError, StorageError


@pytest.mark.parametrize(
    ("arguments", "environment", "expected"),
    [
        (["--root=~/data"], {}, "/home/somebody/data"),
        ([], {"ROOT": "~"}, "/home/somebody"),
        (["--root", "a~b"], {}, "a~b"),
        (["--root", "~nobody-of-this-name/x"], {}, "~nobody-of-this-name/x"),
        ([], {}, "None"),
    ],
)
def test_a_tilde_is_the_users_home_in_every_path(monkeypatch, arguments, environment, expected):
    app = App()

    @app.command()
    def show(root: Annotated[Path | None, typer.Option(envvar="ROOT")] = None) -> None:
        typer.echo(str(root))

    monkeypatch.setenv("HOME", "/home/somebody")
    result = CliRunner().invoke(app, arguments, env=environment)
    assert result.stdout.strip() == expected


def test_a_group_without_a_command_shows_all_of_its_help(capsys):
    app = App(no_args_is_help=True)
    for name in ("first", "last"):
        app.command(name, help=f"The {name}.")(lambda: None)
    with pytest.raises(SystemExit) as left:
        run_app(app, "group", [])
    assert left.value.code == 2 and capsys.readouterr().err.rstrip().endswith("The last.")


def test_a_mistake_of_the_user_is_one_line_and_exit_code_2(capsys):
    app = App()

    @app.command()
    def fail() -> None:
        raise InputError("first\nsecond")

    with pytest.raises(SystemExit) as left:
        run_app(app, "fail", [])
    assert left.value.code == 2 and capsys.readouterr().err == "error: first second\n"


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--trails", "3"], ["--trails", "--trials", "show --help"]),
        (["--trials", "x"], ["--trials", "x", "show --help"]),
        (["--trials=0"], ["--trials", "0", "show --help"]),
        (["--trials"], ["--trials", "value", "show --help"]),
        (["-t", "3"], ["-t", "--trials", "show --help"]),
        (["-s"], ["-s", "--scenario", "show --help"]),
        (["food"], ["--scenario food", "show --help"]),
    ],
)
def test_a_mistake_in_a_line_names_value_nearest_option_and_help(words, named, capsys):
    app = App()

    @app.command()
    def show(trials: Annotated[int, typer.Option(min=1)] = 1, scenario: str = "") -> None:
        typer.echo(f"{trials} {scenario}")

    with pytest.raises(SystemExit) as left:
        run_app(app, "show", words)
    error = capsys.readouterr().err
    assert left.value.code == 2 and error.count("\n") == 1 and all(text in error for text in named)


def test_a_word_that_a_command_does_not_take_is_named(capsys):
    app = App()

    @app.command()
    def clean() -> None:
        raise AssertionError("it ran")

    with pytest.raises(SystemExit) as left:
        run_app(app, "clean", ["food"])
    assert left.value.code == 2 and capsys.readouterr().err.startswith("error: food: ")


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_numbers_are_finite(value):
    app = App()

    @app.command()
    def show(max_days: float = 1.0) -> None:
        typer.echo(str(max_days))

    with pytest.raises(InputError, match=f"--max-days {value}"):
        CliRunner().invoke(app, ["--max-days", value], catch_exceptions=False)


def test_a_name_that_no_file_system_takes_is_one_line(capsys):
    app = App()

    @app.command()
    def show(folder: Path) -> None:
        folder.stat()

    with pytest.raises(SystemExit) as left:
        run_app(app, "show", ["a" * 300])
    error = capsys.readouterr().err
    assert left.value.code == 2 and "too long" in error and error.count("\n") == 1


def test_text_that_the_encoding_lacks_is_escaped(tmp_path):
    with (tmp_path / "out").open("w", encoding="ascii") as stream:
        output = Output(stream)
        output.write("K\xfcche\n")
        output.flush()
        assert (tmp_path / "out").read_bytes() == b"K\\xfcche\n"


def test_a_reader_that_goes_away_ends_no_command():
    reader, writer = os.pipe()
    os.close(reader)
    with os.fdopen(writer, "w") as stream:
        output = Output(stream)
        for _ in range(3):
            output.write("text" * 10_000)
            output.flush()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_a_full_disk_behind_the_output_is_told_once():
    with Path("/dev/full").open("w") as stream:
        output = Output(stream)
        output.write("text")
        with pytest.raises(StorageError) as told:
            output.flush()
        assert told.value.errno == errno.ENOSPC
        output.write("text")
        output.flush()


@pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.ENOSPC])
def test_rights_and_disks_are_one_line_wherever_they_are_met(number, capsys):
    app = App()

    @app.command()
    def show() -> None:
        raise OSError(number, os.strerror(number), "/data/manifest.json")

    with pytest.raises(SystemExit) as left:
        run_app(app, "show", [])
    error = capsys.readouterr().err
    assert left.value.code == 2 and error == f"error: /data/manifest.json: {os.strerror(number)}\n"


@pytest.mark.parametrize(
    ("words", "meant"),
    [
        (["shops"], "--scenario shops"),
        (["--resume", "shops"], "--name shops"),
        (["--extend", "2", "shops"], "--name shops"),
    ],
)
def test_a_word_without_its_option_is_a_scenario_or_the_sweep_to_continue(capsys, words, meant):
    app = App()

    @app.command()
    def sweep(scenario: str = typer.Option(""), name: str = "", resume: bool = False, extend: int = 0) -> None:
        pass

    with pytest.raises(SystemExit):
        run_app(app, "sweep", words)
    assert meant in capsys.readouterr().err
