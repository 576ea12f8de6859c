"""Parts of a page in both layouts."""

from llmemf.pages.charts import Interval, IntervalRow
from llmemf.pages.page import Page, Section, as_html, as_markdown


def page(*parts, **more):
    return Page("Comparison", "c", "", [Section("s", parts, **more)], "")


def test_texts_stand_left_and_one_seed_is_one():
    dots = [IntervalRow("a", [Interval(0.5, 0.4, 0.6)], ["1.0"], ["1"]), IntervalRow("b", [], ["2.0"], ["2"])]
    table = ("table", [["a", ("1.0", "best"), "lr=0.1"]], ["row", "MRR", "chosen"], (0, 2))
    html = as_html(page(("intervals", dots, "seeds"), table))
    assert '<th class="t">chosen' in html and '<th class="">MRR' in html
    assert '<td class="t ">lr=0.1' in html and '<td class="best">1.0' in html
    assert "1 seed<" in html and "2 seeds<" in html


def test_a_part_with_nothing_to_show_is_left_out():
    empty = page(("text", ""), ("plot", None), ("beside", [], "two"), ("steps", []))
    assert "<section><h2>s</h2></section>" in as_html(empty) and "## s" not in as_markdown(empty)


def test_markdown_has_its_own_parts_where_charts_do_not_tell_it():
    table = ("table", [["a|b", ("1.0", "best")], [("part", "section")]], ["row", "MRR"])
    shown = page(("plot", None), ("heading", "h"), twin=[table])
    assert "### h" not in as_markdown(shown)
    assert as_markdown(shown).splitlines()[-4:] == [
        "| row | MRR |", "| --- | ---: |", r"| a\|b | **1.0** |", "| *part* |  |",
    ]  # fmt: skip
