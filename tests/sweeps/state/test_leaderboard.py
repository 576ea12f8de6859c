import csv
import io

import pytest
import yaml
from four_trials import RECORDS
from sweep_fakes import grow, propose

from sweeps.state import leaderboard
from sweeps.state.sweep_state import SweepState


def test_csv_holds_every_trial_setting_and_metric():
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv(RECORDS))))
    assert [row["trial"] for row in rows] == ["t02", "t01", "t03", "t04"]
    assert rows[0]["lr"] == "0.00354" and rows[0]["val/book/hr_10"] == "0.3" and rows[0]["best_epoch"] == "7"
    assert rows[2]["error"] == "a | b" and rows[3]["objective"] == ""
    assert not [name for name in rows[0] if name.startswith("test")]
    assert leaderboard.as_csv([]) == "rank\n"


def test_repeats_stand_in_the_row_of_the_trial_that_they_repeat(tmp_path):
    state = SweepState(tmp_path)
    for value in (0.5, 0.4, 0.3):
        grow(state, propose(state), 4, value=value)
    for number, value in ((1, 0.2), (2, 0.46)):
        grow(state, state.repeat(state.records[number], 1001), 4, value=value)
    rows = leaderboard.rows(list(state.records.values()))
    assert [row["trial"] for row in rows] == ["t02", "t01", "t03"]
    assert [row["seeds"] for row in rows] == [2, 2, None] and rows[0]["mean"] == pytest.approx(0.43)
    assert rows[0]["sd"] == pytest.approx(0.0424, abs=1e-4) and rows[2]["chance_of_best"] is None
    assert rows[0]["chance_of_best"] + rows[1]["chance_of_best"] == pytest.approx(1)
    assert "seed" not in rows[0] and "seeds" not in leaderboard.rows(RECORDS)[0]


def test_best_yaml_is_a_configuration_under_a_header():
    text = leaderboard.best_yaml({"lr": 1e-3, "modalities": ["id"]}, {"scenario": "sample"}, {"val/mrr": 0.25})
    assert yaml.safe_load(text) == {"lr": 1e-3, "modalities": ["id"]}
    assert "# scenario: sample\n" in text and "# val/mrr = 0.2500\n" in text


def test_a_page_is_cut_at_whole_lines():
    page = "# title\n\n" + "\n".join(f"line {i}" for i in range(10, 99))
    text = leaderboard.shortened(page, limit=50)
    assert text.splitlines() == [f"line {i}" for i in range(10, 16)] and len(text) <= 50
    assert leaderboard.shortened(page).endswith("line 98")
