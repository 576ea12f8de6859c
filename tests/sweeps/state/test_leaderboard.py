import csv
import io

import pytest
import yaml
from rich.console import Console

from sweeps.state import leaderboard
from sweeps.state.trial_records import TrialRecord

DOMAINS = ("movie", "book")


def record(number, outcome, objective, **more):
    metrics = {f"val/{d}/{m}": objective for d in DOMAINS for m in ("mrr", "ndcg_10", "hr_10")} if objective else {}
    settings = {"lr": 3.54e-3, "l2": 5.19e-5, "alpha": 0.224, "beta": 0.423, "lambda1": 0.265, "lambda2": 0.443}
    values = {"outcome": outcome, "epoch": 8, "objective": objective, "best_epoch": 7, "metrics": metrics}
    return TrialRecord(number, settings, 8, **values, **more)


RECORDS = [record(1, "pruned", 0.1), record(2, "completed", 0.3), record(3, "failed", 0.9, error="a | b"), record(4, "interrupted", None)]  # fmt: skip


def printed(table, width):
    console = Console(file=io.StringIO(), width=width, color_system=None)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_table_fits_and_is_ordered(width):
    text = printed(leaderboard.table(RECORDS, DOMAINS, width), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert [line.split()[0] for line in lines[2:6]] == ["t02", "t01", "t03", "t04"]
    assert all(name in text for name in ("7/8", "0.3000", "pruned", "failed", "3.54e-3", "0.443"))
    assert ("movie N@10" in text) == (width >= 120)
    assert len(lines) == 6, "one line per trial"


def test_only_the_best_ten_are_shown():
    text = printed(leaderboard.table([record(i, "completed", i / 100) for i in range(1, 15)], DOMAINS, 120), 120)
    assert len(text.splitlines()) == 12 and "t14" in text and "t04" not in text


def test_csv_holds_every_trial_setting_and_metric():
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv(RECORDS))))
    assert [row["trial"] for row in rows] == ["t02", "t01", "t03", "t04"]
    assert rows[0]["lr"] == "0.00354" and rows[0]["val/book/hr_10"] == "0.3" and rows[0]["best_epoch"] == "7"
    assert rows[2]["error"] == "a | b" and rows[3]["objective"] == ""
    assert not [name for name in rows[0] if name.startswith("test")]
    assert leaderboard.as_csv([]) == "rank\n"


def test_markdown_is_a_table_with_notes_and_test_metrics():
    text = leaderboard.as_markdown(RECORDS, title="s1", notes=["A generated sample."], test={"test/movie/mrr": 0.5})
    table = [line for line in text.splitlines() if line.startswith("|")]
    assert text.startswith("# s1\n") and "A generated sample." in text
    assert len({line.replace("\\|", "").count("|") for line in table[:6]}) == 1
    assert "| test/movie/mrr | 0.5000 |" in text


def test_best_yaml_is_a_configuration_under_a_header():
    text = leaderboard.best_yaml({"lr": 1e-3, "modalities": ["id"]}, {"scenario": "sample"}, {"val/mrr": 0.25})
    assert yaml.safe_load(text) == {"lr": 1e-3, "modalities": ["id"]}
    assert "# scenario: sample\n" in text and "# val/mrr = 0.2500\n" in text


def test_the_best_checkpoint_is_kept_whole(tmp_path):
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "sweep"
    checkpoint.mkdir()
    folder.mkdir()
    for text in ("old", "new"):
        for name in ("best.safetensors", "config.yaml", "state.pt", "report.json"):
            (checkpoint / name).write_text(text)
        assert leaderboard.keep_best(checkpoint, folder) == folder / "best"
        assert {path.name: path.read_text() for path in (folder / "best").iterdir()} == {
            "best.safetensors": text, "config.yaml": text
        }  # fmt: skip
    assert [path.name for path in folder.iterdir()] == ["best"]


def test_the_old_best_stays_where_the_new_one_cannot_be_copied(tmp_path):
    checkpoint, folder = tmp_path / "checkpoint", tmp_path / "sweep"
    checkpoint.mkdir()
    (folder / "best").mkdir(parents=True)
    (folder / "best" / "config.yaml").write_text("old")
    (checkpoint / "best.safetensors").write_text("new")
    with pytest.raises(FileNotFoundError):
        leaderboard.keep_best(checkpoint, folder)
    assert (folder / "best" / "config.yaml").read_text() == "old"
    assert [path.name for path in folder.iterdir()] == ["best"]


def test_a_page_is_cut_at_whole_lines():
    page = "# title\n\n" + "\n".join(f"line {i}" for i in range(10, 99))
    text = leaderboard.shortened(page, limit=50)
    assert text.splitlines() == [f"line {i}" for i in range(10, 16)] and len(text) <= 50
    assert leaderboard.shortened(page).endswith("line 98")
