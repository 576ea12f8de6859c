"""Pages of tables: several sweeps beside each other."""

import json

import pytest
from report_fakes import make_sweep, rising, trial
from rich.console import Console

from llmemf.errors import InputError
from llmemf.pages.charts import Interval, IntervalRow
from llmemf.pages.page import Page, Section, as_html
from sweeps.reporting.write import write_beside


def test_sweeps_stand_beside_each_other_with_what_differs(tmp_path):
    one = make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.06))], name="one", tests={2: {"test/mrr": 0.055}})
    two = make_sweep(tmp_path, [trial(rising(0.08)), trial([0.1], "failed")], name="<two>", epochs=9)
    page = write_beside([one, two], Console(quiet=True))
    text = page.read_text()
    assert page.parent == one.folder and "&lt;two&gt;" in text and "<two>" not in text
    assert ">0.0550" in text and 'class="best">0.0788' in text, "the test of one, the best objective of both"
    assert ">epochs<" not in text and "epochs at most" in text and ">lr" in text
    assert text.count('class="l s0"') == text.count('class="l s1"') == 2


def test_sweeps_on_other_data_are_warned_of_and_two_of_one_name_refused(tmp_path):
    one = make_sweep(tmp_path, [trial(rising(0.05))], name="one")
    two = make_sweep(tmp_path, [], name="two", status="planned")
    two.fingerprint = "0" * 64
    assert "different data" in write_beside([one, two], Console(quiet=True)).read_text()
    with pytest.raises(InputError, match="one one"):
        write_beside([one, one], Console(quiet=True))


def test_simple_systems_are_levels_in_the_charts(tmp_path):
    from sweeps.reporting.gather import gather
    from sweeps.reporting.trial_charts import best_so_far, curves, losses

    record = make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.04)), trial(rising(0.06))])
    levels = {"chance": -9.0, "popularity": 0.04, "neighbours": 0.0405}
    (record.folder / "references.json").write_text(json.dumps({name: {"val/mrr": at} for name, at in levels.items()}))
    history = gather(record)
    for plot in (curves(history), best_so_far(history)):
        found = [label.text for label in plot.labels if label.kind == "level"]
        assert found == ["popularity 0.0400, neighbours 0.0405"], "one that would flatten the rest is left out"
    line = best_so_far(history).lines[-1]
    heights = [y for _, y in line.points]
    assert heights == sorted(heights) and heights[0] < heights[-1] and len(history.valued) == 3
    assert losses(history) is None, "no training loss is known"


def test_texts_stand_left_and_one_seed_is_one():
    dots = [IntervalRow("a", [Interval(0.5, 0.4, 0.6)], ["1.0"], ["1"]), IntervalRow("b", [], ["2.0"], ["2"])]
    table = ("table", [["a", ("1.0", "best"), "lr=0.1"]], ["row", "MRR", "chosen"], (0, 2))
    page = as_html(Page("Comparison", "c", "", [Section("s", [("intervals", dots, "seeds"), table])], ""))
    assert '<th class="t">chosen' in page and '<th class="">MRR' in page
    assert '<td class="t ">lr=0.1' in page and '<td class="best">1.0' in page
    assert "1 seed<" in page and "2 seeds<" in page
