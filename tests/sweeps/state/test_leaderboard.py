import csv
import io

import yaml
from four_trials import RECORDS

from sweeps.state import leaderboard


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


def test_a_page_is_cut_at_whole_lines():
    page = "# title\n\n" + "\n".join(f"line {i}" for i in range(10, 99))
    text = leaderboard.shortened(page, limit=50)
    assert text.splitlines() == [f"line {i}" for i in range(10, 16)] and len(text) <= 50
    assert leaderboard.shortened(page).endswith("line 98")
