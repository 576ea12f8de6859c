"""The page and its twin: of every kind of sweep, with nothing in them that is markup by accident, and the right digits."""

import csv
import datetime
import io
import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
from page_outline import Outline, assert_snapshot
from report_fakes import make_sweep, many, metrics, rising, trial

from llmemf.pages.html_page import markdown_text
from llmemf.pages.page import as_html, as_markdown
from sweeps.reporting import conclusions, sections
from sweeps.reporting.breakdown import Ranked
from sweeps.reporting.conclusions import Conclusions
from sweeps.reporting.content import report_page
from sweeps.reporting.gather import gather
from sweeps.reporting.importance import Importances
from sweeps.reporting.tracked import Tracked
from sweeps.state import leaderboard

GONE = Tracked(problem="there is no database")
NASTY = '<script>alert("x")</script> & \U0001f4a5 `|*_'


def report_of(storage, trials, /, ranked=None, tracked=GONE, **more):
    return report_page(Conclusions(gather(make_sweep(storage, trials, **more)), tracked, ranked))


def fake_ranks(scenario):
    rng = np.random.default_rng(0)
    count, targets = len(scenario.valid), scenario.valid.targets
    found = {"case": np.arange(count), "domain": (targets >= scenario.num_x).astype(int)}
    return found | {key: rng.integers(1, 30, count).astype(float) for key in ("sampled", "full")}


KINDS = {
    "empty": ([], {"status": "planned"}),
    "not yet": ([trial([], "pending")], {"status": "running", "opened": {"pid": os.getpid()}}),
    "all failed": ([trial([], "failed"), trial([0.01], "failed")], {"status": "failed"}),
    "one": ([trial(rising(0.05))], {}),
    "one epoch": ([trial([0.05]), trial([0.04])], {"epochs": 1}),
    "running": ([trial(rising(0.05)), trial([0.01], "")], {"status": "running", "opened": {"pid": os.getpid()}}),
    "interrupted": ([trial(rising(0.05)), trial([0.01], "")], {"status": "interrupted", "trials": 7}),
    "equal": ([trial([0.05] * 6) for _ in range(12)], {}),
    "no scheduler": ([trial(rising(0.05)), trial(rising(0.06))], {"scheduler": "none"}),
    "texts": ([trial(rising(0.05 + n / 1e3), settings={"modalities": ["id", "text"] if n % 2 else ["id"]})
               for n in range(12)], {"space": {"modalities": [["id"], ["id", "text"]]}}),
    "ids only": ([trial(rising(0.05), settings={"lr": 1e-3, "dim": 64}), trial(rising(0.04), settings={"lr": 1e-2,
                 "dim": 32})], {"model": "sasrec", "space": {"lr": [1e-3, 1e-2], "dim": [32, 64]}}),
    "seeds": ([trial(rising(0.05), settings={"seed": 1}), trial(rising(0.06), settings={"seed": 2})],
              {"name": "c--m--seeds", "space": {"seed": [1, 2]}}),
    "extended": ([trial(rising(0.05), settings={"lr": 1e-3}), trial(rising(0.06), settings={"lr": 1e-2, "l2": 1e-4})], {}),
    "unknown model": ([trial(rising(0.05))], {"model": "gone"}),
    "unreadable space": ([trial(rising(0.05))], {"space": {"lr": {"low": 3}}}),
    "loss": ([trial(rising(0.05)), trial(rising(0.06))], {"fixed": {"monitor": "val_loss"}}),
}  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_sweep_has_a_page(tmp_path, kind):
    trials, more = KINDS[kind]
    data = report_of(tmp_path, trials, **more)
    page, twin = Outline(as_html(data)), as_markdown(data)
    shown = page.values("id", "section")
    assert "made" in shown and twin.startswith("# ")
    assert page.values("href") == [f"#{name}" for name in shown]
    assert "nan" not in page.text.lower().split() and "None" not in page.text.split() and "None" not in twin.split()
    if kind in ("empty", "not yet", "all failed"):
        assert "best" not in shown and data.warnings
    assert all(warning in page.text for warning in data.warnings)
    if kind == "running":
        assert "still running" in data.warnings[0] and "still running" in twin
    if kind == "one":
        assert {"best", "trials", "curves", "settings", "cost", "groups"} <= set(shown)


def test_a_report_as_a_whole(tmp_path, monkeypatch):
    scenario = tiny.make_scenario()
    trials = [trial(rising(0.05)), trial(rising(0.06)), trial([0.01, 0.02], "pruned"), trial([0.01], "failed")]
    record = make_sweep(tmp_path, trials, tests={2: {"test/mrr": 0.07}})
    found = Conclusions(gather(record), GONE, Ranked({"t02": fake_ranks(scenario)}, scenario))
    # Where the report is made is no part of what it says.
    monkeypatch.setattr(sections, "facts", lambda found: [("sweep", "s1")])
    monkeypatch.setattr(sections, "shared_settings", lambda history: [("epochs", "6")])
    found.advice[:] = [replace(item, command=item.command and "a command") for item in found.advice]
    page = report_page(found, datetime.datetime(2026, 11, 26, 3, 0))
    html, twin = (text.replace(f"{record.folder}/", "") for text in (as_html(page), as_markdown(page)))
    assert_snapshot(Outline(html).blocks, Path(__file__).with_name("report.txt"))
    assert_snapshot(twin.replace(markdown_text(f"{record.folder}/"), ""), Path(__file__).with_name("report.md"))


def test_nothing_written_by_others_becomes_markup(tmp_path):
    trials = [trial(rising(0.05 + n / 1e3), settings={"lr": 1e-3, "title": NASTY + str(n)}) for n in range(12)]
    trials.append(trial([], "failed", error=f"ValueError: {NASTY}", settings={"lr": 1e-3, "title": NASTY}))
    tracked = Tracked("run", tags={"text_encoder": NASTY, "text_features": NASTY, "candidates_valid": NASTY})
    data = report_of(tmp_path, trials, tracked=tracked, fixed={"text_encoder": NASTY}, space={})
    html, twin = as_html(data), as_markdown(data)
    page = Outline(html)
    assert page.tags.count("script") == 2, "the data and the script, nothing else"
    assert NASTY in page.text and "alert" not in re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    labels = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert NASTY in labels["13"][3]
    plain = re.sub(r"```.*?```", "", twin, flags=re.DOTALL)
    assert "<script" not in plain
    rows = [line for line in plain.splitlines() if line.startswith("|") and "t13" in line]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) >= 5 for row in rows)


def test_the_numbers_are_those_of_the_leaderboard(tmp_path):
    history = gather(make_sweep(tmp_path, many(9), epochs=27))
    page = as_html(report_page(Conclusions(history, GONE, None)))
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv(history.records))))
    table = re.search(r'<table class="board.*?</table>', page, re.DOTALL)[0]
    heads = re.findall(r'<button type="button">(.*?)</button>', table)
    found = [re.findall(r"<td[^>]*>[^<]*", row) for row in table.split("<tr")[2:]]
    column = {"objective": "objective", "movie MRR": "val/movie/mrr", "book N@10": "val/book/ndcg_10", "lr": "lr",
              "book MRR (all items)": "val_full/book/mrr"}  # fmt: skip
    assert len(found) == len(rows) == 9
    for cells, row in zip(found, rows):
        assert row["trial"] in cells[1]
        for head, name in column.items():
            cell = cells[heads.index(head)].strip()
            full = re.search(r'data-v="(.*?)"', cell)
            assert (full[1] if full else "") == row[name], f"{row['trial']} {head}"
            if full and name != "lr":
                assert cell.endswith(f">{float(row[name]):.4f}")


def test_metrics_of_the_best_trial_stand_on_both_pages(tmp_path):
    test = {"test/mrr": 0.0712345, "test/movie/mrr": 0.0812, "test/book/mrr": 0.0613}
    history = gather(make_sweep(tmp_path, [trial(rising(0.04)), trial(rising(0.05))], tests={2: test}))
    data = report_page(Conclusions(history, GONE, None))
    best = metrics(history.best.curve[history.best.record.best_epoch - 1])
    assert ("Test MRR", "0.0712", "tested once") in data.tiles
    for page in (as_html(data), as_markdown(data)):
        assert all(f"{value:.4f}" in page for value in (best["val/movie/mrr"], *test.values()))


def test_a_test_metric_is_shown_only_for_the_best_trial(tmp_path):
    data = report_of(tmp_path, [trial(rising(0.05)), trial(rising(0.06))], tests={1: {"test/mrr": 0.9123}})
    assert "0.9123" not in as_html(data) and next(tile for tile in data.tiles if tile[0] == "Test MRR")[1] == "-"


def test_two_hundred_trials_make_a_small_page(tmp_path, monkeypatch):
    # The resampling takes seconds and adds a bar per setting.
    monkeypatch.setattr(conclusions, "importances", lambda trials, parameters: Importances())
    data = report_of(tmp_path, many(200), epochs=27)
    page, twin = as_html(data), as_markdown(data)
    assert len(page.encode()) < 1_000_000 and len(twin.encode()) < 100_000
    assert page.count("<tr class=") == 200 and 'class="board short"' in page and 'class="many"' in page


def test_results_by_groups_are_shown(tmp_path):
    scenario = tiny.make_scenario()
    ranks = fake_ranks(scenario)
    data = report_of(tmp_path, [trial(rising(0.05)), trial(rising(0.04))], ranked=Ranked({"t01": ranks}, scenario))
    text, twin = Outline(as_html(data)).text, as_markdown(data)
    film = np.mean(1 / ranks["sampled"][ranks["domain"] == 0])
    assert f"film: {film:.4f}" in text and f"{film:.4f}" in twin
    assert "By popularity of the target" in text and "By length of the history" in text
    left_out = report_of(tmp_path, [trial(rising(0.05))], name="without")
    assert "--no-breakdown" in as_html(left_out) and "no-breakdown" in as_markdown(left_out)
    gone = Ranked(problem="The weights of t01 are gone.")
    assert gone.problem in as_html(report_of(tmp_path, [trial(rising(0.05))], ranked=gone, name="gone"))


def test_the_page_asks_nobody_for_anything(tmp_path):
    page = as_html(report_of(tmp_path, many(9), epochs=27))
    assert not re.search(r'(src|href)="(?!#|data:,)', page) and "@import" not in page and "url(" not in page
    assert 'content="width=device-width, initial-scale=1"' in page and "screen and (prefers-color-scheme:dark)" in page


def test_both_rankings_are_compared_where_trials_have_both(tmp_path):
    trials = [trial(rising(0.05 + n / 1e3), full=0.05 - n / 1e3) for n in range(6)]
    page = as_html(report_of(tmp_path, trials))
    assert page.count("over 6 trials: -1.00") == 2 and page.count("MRR among stored candidates") == 2
    same = [trial([0.05 + n / 1e3], full=0.05 + n / 1e3) for n in range(6)]
    page = as_html(report_of(tmp_path, same, name="same", epochs=1))
    assert page.count("the same numbers") == 2 and "MRR among stored candidates" not in page
