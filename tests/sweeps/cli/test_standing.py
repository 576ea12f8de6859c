"""Sweeps for people and programs: the list, one sweep, and whoever is told that one has ended."""

import http.server
import json
import threading
from pathlib import Path

import pytest
import typer
from report_fakes import make_sweep, rising, trial
from rich.console import Console

from llmemf.errors import InputError
from sweeps.cli.main import main
from sweeps.cli.on_end import on_end


def printed(capsys, *words):
    with pytest.raises(SystemExit) as left:
        main(list(map(str, words)))
    assert left.value.code == 0
    return capsys.readouterr().out


@pytest.fixture
def storage(tmp_path):
    make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.06))], name="old")
    make_sweep(tmp_path, [trial([0.1], "failed")], name="new", status="failed", created="2026-11-22T08:00:00.000000")
    make_sweep(tmp_path, [trial([0.1])], name="c1--sasrec")
    (tmp_path / "comparisons" / "c1").mkdir(parents=True)
    return tmp_path


@pytest.mark.parametrize("place", ["notes", "notes/below"])
@pytest.mark.parametrize(
    "words", ["sweeps", "report x", "live x", "serve x", "export x", "ui", "clean", "ablation --resume --name x"]
)
def test_a_file_in_the_place_of_the_storage_is_named_by_every_command(tmp_path, capsys, words, place):
    (tmp_path / "notes").write_text("")
    with pytest.raises(SystemExit) as left:
        main([*words.split(), "--storage", str(tmp_path / place)])
    assert left.value.code == 2 and f"{tmp_path / 'notes'} is a file" in capsys.readouterr().err


def test_sweeps_are_listed_the_newest_first_without_those_of_groups(storage, capsys):
    found = json.loads(printed(capsys, "sweeps", "--storage", storage, "--json"))
    assert [(item["name"], item["state"]) for item in found] == [("new", "failed"), ("old", "completed")]
    assert found[0]["best"] is None and found[1]["best"]["trial"] == "t02"
    table = printed(capsys, "sweeps", "--storage", storage)
    assert table.index("new") < table.index("old") and "0.0591" in table and "c1--sasrec" not in table
    assert "c1--sasrec" in printed(capsys, "sweeps", "--storage", storage, "--parts")
    one = printed(capsys, "sweeps", "old", "--storage", storage)
    assert "2 of 2 trials ended" in one and one.index("t02") < one.rindex("t01")
    assert len(json.loads(printed(capsys, "sweeps", "old", "--storage", storage, "--json"))["leaderboard"]) == 2


@pytest.mark.parametrize("words", [("report", "old", "--no-breakdown"), ("report", "old", "new")])
def test_a_report_for_programs_is_json_alone_on_standard_output(storage, capsys, words):
    found = json.loads(printed(capsys, *words, "--storage", storage, "--json"))
    assert Path(found["page"]).exists()
    assert [item["name"] for item in found.get("sweeps", [found])] == [word for word in words[1:] if word[0] != "-"]


@pytest.mark.parametrize("words", [("report", "odl"), ("live", "odl"), ("sweeps", "odl"), ("live", "--port", "0")])
def test_a_sweep_that_is_not_there_is_named(tmp_path, capsys, words):
    make_sweep(tmp_path, [trial(rising(0.05))], name="old")
    storage = tmp_path / ("empty" if "--port" in words else "")
    with pytest.raises(SystemExit) as left:
        main([*words, "--storage", str(storage)])
    said = capsys.readouterr().err
    assert left.value.code == 2 and said.count("\n") == 1
    assert str(storage) in said if "--port" in words else "'odl'" in said and "'old'" in said


@pytest.mark.parametrize(("error", "code"), [(typer.Exit(4), 4), (InputError("x"), 2), (KeyboardInterrupt(), 130)])
def test_a_command_is_told_how_it_ended(tmp_path, error, code):
    hook = f'cat > {tmp_path}/told; echo "$LLMEMF_NAME $LLMEMF_STATE $LLMEMF_EXIT_CODE" > {tmp_path}/named'
    with pytest.raises(type(error)), on_end(hook, lambda: {"name": "s1", "state": "completed"}, Console()):
        raise error
    assert json.loads((tmp_path / "told").read_text()) == {"name": "s1", "state": "completed", "exit_code": code}
    assert (tmp_path / "named").read_text() == f"s1 completed {code}\n"


def test_an_address_gets_a_request():
    told = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_POST(self):
            told.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *words):
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        with (
            pytest.raises(typer.Exit),
            on_end(f"http://127.0.0.1:{server.server_port}/", lambda: {"name": "s1"}, Console()),
        ):
            raise typer.Exit(0)
        thread.join()
    assert told == [{"name": "s1", "exit_code": 0}]


@pytest.mark.parametrize("hook", ["exit 3", "http://127.0.0.1:9/"])
def test_a_hook_that_fails_is_said_and_changes_nothing(hook, capsys):
    with pytest.raises(typer.Exit) as left, on_end(hook, lambda: {"name": "s1", "state": "failed"}, Console()):
        raise typer.Exit(1)
    assert left.value.exit_code == 1 and f"--on-end {hook}" in capsys.readouterr().out


def test_a_list_without_a_terminal_keeps_names_whole_and_a_short_leaderboard_says_so(tmp_path, capsys):
    name = "movie_book_windows-20261127-052424-rerun--t07--seeds"
    make_sweep(tmp_path, [trial(rising(0.05 + n / 1000)) for n in range(12)], name=name)
    assert name in printed(capsys, "sweeps", "--storage", tmp_path)
    assert "10 of 12" in printed(capsys, "sweeps", name, "--storage", tmp_path)
