"""Progress of a long run without a terminal: a line now and then, and the last state at the end."""

from __future__ import annotations

from pathlib import Path

from llmemf.commands.progress import ProgressLine


def test_lines_come_now_and_then_and_once_at_the_end(capsys):
    with ProgressLine("texts") as line:
        for done in (1, 2, 3, 8):
            line.show(done, 8, "9 tokens", "")
    first, last = capsys.readouterr().out.splitlines()
    assert first.startswith("1 of 8 texts  ") and first.endswith(" left") and "9 tokens" in first
    assert last.startswith("8 of 8 texts  ") and "left" not in last


def test_every_file_has_a_count_of_its_own(capsys):
    with ProgressLine() as line:
        for name, done in (("a/Books.json.gz", 5), ("a/Books.json.gz", 80), ("a/meta_Books.json.gz", 80)):
            line.show_file(Path(name), done * 10**6, 80 * 10**6)
    assert [text.split("  ")[0] for text in capsys.readouterr().out.splitlines()] == [
        "5 of 80 MB of Books.json.gz",
        "80 of 80 MB of Books.json.gz",
        "80 of 80 MB of meta_Books.json.gz",
    ]


def test_a_state_is_told_once_and_without_the_speed_of_no_time(capsys):
    with ProgressLine() as line:
        for _ in range(2):
            line.show_file(Path("orders.csv"), 3 * 10**6, 3 * 10**6)
    (only,) = capsys.readouterr().out.splitlines()
    assert only.startswith("3 of 3 MB of orders.csv") and "/s" not in only


def test_what_comes_next_stands_below_the_last_state(capsys):
    with ProgressLine() as line:
        for done in (1, 3):
            line.show_file(Path("orders.csv"), done * 10**6, 3 * 10**6)
        line.begin("filtering")
    assert [text.split(" ")[0] for text in capsys.readouterr().out.splitlines()] == ["1", "3", "filtering"]
