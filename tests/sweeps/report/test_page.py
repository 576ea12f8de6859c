"""The page and its twin: from every kind of sweep, with nothing in them that is markup by accident, and the right digits."""

import csv
import io
import json
import os
import re
import time
from html.parser import HTMLParser

import numpy as np
import pytest
import tiny
from report_fakes import make_sweep, many, metrics, rising, trial

from sweeps.report.breakdown import Ranked
from sweeps.report.content import make_report
from sweeps.report.gather import gather
from sweeps.report.markdown import as_markdown
from sweeps.report.page import render
from sweeps.report.tracked import Tracked
from sweeps.state import leaderboard

GONE = Tracked(problem="there is no database")
VOID = {"meta", "path", "br", "td", "tr"}
"""Elements without an end tag: of HTML, and rows and cells, whose end tags are optional."""
NASTY = '<script>alert("x")</script> & \U0001f4a5 `|*_'


class Page(HTMLParser):
    """Element names, visible texts, attributes; knows whether elements are closed in order."""

    def __init__(self, text):
        super().__init__()
        self.open, self.texts, self.attributes, self.sections = [], [], [], []
        self.ids = set()
        self.feed(text)
        assert self.open == [], f"not closed: {self.open}"

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        assert found.get("id") not in self.ids, f"id {found['id']} stands there twice"
        self.ids |= {found["id"]} if "id" in found else set()
        self.attributes.append((tag, found))
        if tag == "section":
            self.sections.append(found["id"])
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag, f"</{tag}> closes another element"

    def handle_data(self, data):
        if not self.open or self.open[-1] not in ("style", "script"):
            self.texts.append(data)


def report_of(storage, trials, /, ranked=None, tracked=GONE, **more):
    return make_report(gather(make_sweep(storage, trials, **more)), tracked, ranked)


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
    report = report_of(tmp_path, trials, **more)
    page, twin = Page(render(report)), as_markdown(report)
    assert "made" in page.sections and twin.startswith("# ")
    text = " ".join(page.texts)
    assert "nan" not in text.lower().split() and "None" not in text.split() and "None" not in twin.split()
    if kind in ("empty", "not yet", "all failed"):
        assert "best" not in page.sections and ("No trial" in text or "still running" in text)
    if kind == "running":
        assert "still running" in text and "still running" in twin
    if kind == "one":
        assert {"best", "trials", "curves", "settings", "cost", "groups"} <= set(page.sections)


def test_nothing_written_by_others_becomes_markup(tmp_path):
    trials = [trial(rising(0.05 + n / 1e3), settings={"lr": 1e-3, "title": NASTY + str(n)}) for n in range(12)]
    trials.append(trial([], "failed", error=f"ValueError: {NASTY}", settings={"lr": 1e-3, "title": NASTY}))
    tracked = Tracked("run", tags={"text_encoder": NASTY, "text_features": NASTY, "candidates_valid": NASTY})
    report = report_of(tmp_path, trials, tracked=tracked, fixed={"text_encoder": NASTY}, space={})
    html, twin = render(report), as_markdown(report)
    page = Page(html)
    assert sum(tag == "script" for tag, _ in page.attributes) == 2, "the data and the script, nothing else"
    assert NASTY in " ".join(page.texts) and "alert" not in re.findall(r"<script>(.*?)</script>", html, re.DOTALL)[0]
    data = json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
    assert NASTY in data["13"][3]
    plain = re.sub(r"```.*?```", "", twin, flags=re.DOTALL)
    assert "<script" not in plain
    rows = [line for line in plain.splitlines() if line.startswith("|") and "t13" in line]
    assert rows and all(len(re.findall(r"(?<!\\)\|", row)) >= 5 for row in rows)


def test_the_numbers_are_those_of_the_leaderboard(tmp_path):
    test = {"test/mrr": 0.0712345, "test/movie/mrr": 0.08, "test/book/mrr": 0.06}
    report = report_of(tmp_path, many(30), epochs=27, tests={})
    rows = list(csv.DictReader(io.StringIO(leaderboard.as_csv(report.findings.records))))
    table = re.search(r'<table class="board.*?</table>', render(report), re.DOTALL)[0]
    heads = re.findall(r'<button type="button">(.*?)</button>', table)
    found = [re.findall(r"<td[^>]*>[^<]*", row) for row in table.split("<tr")[2:]]
    column = {"objective": "objective", "movie MRR": "val/movie/mrr", "book N@10": "val/book/ndcg_10", "lr": "lr",
              "book MRR (all items)": "val_full/book/mrr"}  # fmt: skip
    assert len(found) == len(rows) == 30
    for cells, row in zip(found, rows):
        assert row["trial"] in cells[1]
        for head, name in column.items():
            cell = cells[heads.index(head)]
            full = re.search(r'data-v="(.*?)"', cell)
            assert (full[1] if full else "") == row[name], f"{row['trial']} {head}"
            if full and name != "lr":
                assert cell.endswith(f">{float(row[name]):.4f}")
    best = report.findings.best
    number = next(index for index, story in report.findings.trials.items() if story is best)
    again = report_of(tmp_path, many(30), epochs=27, tests={number: test}, name="tested")
    assert ">0.0712<" in render(again) and "| Test MRR | 0.0712 | looked at once |" in as_markdown(again)
    assert all(f"{metrics(best.curve[best.record.best_epoch - 1])['val/movie/mrr']:.4f}" in page
               for page in (render(again), as_markdown(again)))  # fmt: skip


def test_a_test_metric_is_shown_only_where_the_sweep_looked(tmp_path):
    report = report_of(tmp_path, [trial(rising(0.05)), trial(rising(0.06))], tests={1: {"test/mrr": 0.9123}})
    assert "0.9123" not in render(report), "the test metrics of a trial that is not the best any more"
    assert "has not looked at the test split" in render(report)


def test_five_hundred_trials_are_small_and_quick(tmp_path):
    record = make_sweep(tmp_path, many(500), epochs=27)
    began = time.process_time()
    report = make_report(gather(record), GONE, None)
    page, twin = render(report), as_markdown(report)
    assert time.process_time() - began < 20
    assert len(page.encode()) < 3_000_000 and len(twin.encode()) < 100_000
    assert page.count("<tr class=") >= 480 and 'class="board short"' in page and Page(page).sections


def test_results_by_groups_are_shown(tmp_path):
    scenario = tiny.make_scenario()
    ranks = fake_ranks(scenario)
    report = report_of(tmp_path, [trial(rising(0.05)), trial(rising(0.04))], ranked=Ranked({"t01": ranks}, scenario))
    text, twin = " ".join(Page(render(report)).texts), as_markdown(report)
    film = np.mean(1 / ranks["sampled"][ranks["domain"] == 0])
    assert f"film: {film:.4f}" in text and f"{film:.4f}" in twin
    assert "By popularity of the target" in text and "By length of the history" in text
    left_out = report_of(tmp_path, [trial(rising(0.05))], name="without")
    assert "--no-breakdown" in render(left_out) and "no-breakdown" in as_markdown(left_out)
    gone = report_of(
        tmp_path, [trial(rising(0.05))], ranked=Ranked(problem="The weights of t01 are gone."), name="gone"
    )
    assert "The weights of t01 are gone." in render(gone)


def test_the_page_asks_nobody_for_anything(tmp_path):
    page = render(report_of(tmp_path, many(30), epochs=27))
    assert not re.search(r'(src|href)="(?!#)', page) and "@import" not in page and "url(" not in page
    assert 'content="width=device-width, initial-scale=1"' in page and "screen and (prefers-color-scheme:dark)" in page


def test_both_rankings_are_compared_where_trials_have_both(tmp_path):
    trials = [trial(rising(0.05 + n / 1e3), full=0.05 - n / 1e3) for n in range(6)]
    assert "rank correlation over 6 trials: -1.00" in render(report_of(tmp_path, trials))
    same = [trial([0.05 + n / 1e3], full=0.05 + n / 1e3) for n in range(6)]
    assert "the stored candidates are all items" in render(report_of(tmp_path, same, name="same", epochs=1))
