"""Tables of made-up ranks: every number that is looked at here was worked out by hand."""

import csv
import dataclasses
import io

import numpy as np
import pytest
from rich.console import Console
from sweep_fakes import tiny_scenario

from llmemf.models import MODELS
from llmemf.ranking import summarise
from sweeps.groups import table as tables
from sweeps.groups.blocks import blocks_of
from sweeps.groups.cells import Block, Cell
from sweeps.groups.csv_table import csv_lines
from sweeps.groups.group import Group, Row
from sweeps.groups.notes import notes_of, side_note
from sweeps.groups.paper_numbers import FOOD_KITCHEN, MOVIE_BOOK, NAMES, in_table_order, shown_name
from sweeps.groups.render import files, for_terminal
from sweeps.groups.results import RowResult, SeedResult
from sweeps.groups.significance import BEST, Spread

DOMAINS = ("movie", "book")
RANKS = {
    # Two movies, three books; two seeds.
    "sasrec": ([1, 2, 4, 5, 10], [1, 4, 4, 5, 20]),
    "gru4rec": ([2, 2, 1, 2, 4], [2, 4, 1, 2, 2]),
    "popularity": ([8, 20, 50, 11, 100],),
}


def made_ranks(sampled):
    sampled = np.array(sampled, dtype=float)
    kinds = {"case": np.arange(5), "domain": np.array([0, 0, 1, 1, 1]), "sampled": sampled, "full": 2 * sampled}
    return {**kinds, "nll": np.ones(5)}


def made_result(model, outcome="done", **more):
    ranks = [made_ranks(of_seed) for of_seed in RANKS.get(model, ())]
    seeds = {
        seed: SeedResult(metrics=summarise(of_seed, DOMAINS, "test"), best_epoch=3, epochs_run=4, seconds=62.0)
        for seed, of_seed in enumerate(ranks, start=1)
    }
    search = (
        {"trials": 6, "completed": 4, "pruned": 2, "failed": 0, "seconds": 301.0, "objective": 0.05} if seeds else {}
    )
    values = {"status": "faithful", "seeds": seeds, "search": search, "chosen": {"lr": 1e-3}, "parameters": 65_500}
    return RowResult(model, outcome, **{**values, **more})


def made_table(scenario=None, **systems):
    group = Group(
        kind="comparison", name="c1", requested="sample", scenario="sample", seeds=[1, 2], trials=6, fixed={"epochs": 4},
        rows=[Row(name=name, title=shown_name(name), model=name) for name in systems], data_root="/data",
        storage="/mlruns", tracking_uri="sqlite:////mlflow.db",
    )  # fmt: skip
    ranks = {
        name: [made_ranks(of_seed) for of_seed in RANKS[name]]
        for name, result in systems.items()
        if result.outcome == "done"
    }
    scenario = scenario or tiny_scenario()
    return tables.build_table(group, scenario, list(systems.values()), {}, ranks)


@pytest.fixture
def table():
    return made_table(
        popularity=made_result("popularity", status="floor", parameters=0),
        gru4rec=made_result("gru4rec"),
        sasrec=made_result("sasrec"),
        psjnet=made_result("psjnet", "failed", reason="6 trials failed: NonFiniteLoss: nan", status="reconstructed"),
        llm_emf=made_result("llm_emf", "missing", reason="no image features"),
    )


def test_mean_and_spread_over_seeds_by_hand(table):
    """SASRec, movies: MRR 0.75 and 0.625; mean 68.75, sample deviation 0.125 / sqrt(2) = 8.8388."""
    cell = table.row("sasrec").cells["test/movie/mrr"]
    assert cell.mean == pytest.approx(68.75) and cell.deviation == pytest.approx(8.838834764831844)
    full = table.row("sasrec").cells["test_full/movie/mrr"]
    assert full.mean == pytest.approx(68.75 / 2) and full.deviation == pytest.approx(8.838834764831844 / 2)
    alone = table.row("popularity").cells["test/book/ndcg_10"]
    assert (alone.mean, alone.deviation) == (0, None)
    assert table.row("psjnet").cells == {} == table.row("llm_emf").cells


def test_best_and_second_of_every_column(table):
    places = {row.name: table.place(row, "test/movie/mrr") for row in table.rows}
    assert places == {"popularity": 0, "gru4rec": 2, "sasrec": 1, "psjnet": 0, "llm_emf": 0}
    places = {row.name: table.place(row, "test/book/mrr") for row in table.rows}
    assert places == {"popularity": 0, "gru4rec": 1, "sasrec": 2, "psjnet": 0, "llm_emf": 0}


def test_equal_means_share_a_place():
    table = made_table(sasrec=made_result("sasrec"), gru4rec=made_result("gru4rec"))
    for row in table.rows:
        row.cells["test/movie/mrr"] = Spread(5.0, 0.1, 4.9, 5.1, 2)
    assert [table.place(row, "test/movie/mrr") for row in table.rows] == [1, 1]


def test_tests_of_the_table_are_those_of_the_means_shown(table):
    for place in tables.metric_names(DOMAINS):
        means = {row.name: row.cells[place].mean for row in table.rows if row.cells}
        for row in table.rows:
            if row.cells:
                test = row.case_tests[place]
                assert means[test.against] == max(mean for model, mean in means.items() if model != row.name)
                assert 100 * test.difference == pytest.approx(means[row.name] - means[test.against])
    assert not table.row("psjnet").case_tests


def test_cases_must_be_the_same():
    other = {**made_ranks([1, 1, 1, 1, 1]), "case": np.arange(5)[::-1]}
    with pytest.raises(AssertionError, match="other cases"):
        tables.case_tests({"a": [made_ranks([1, 1, 1, 1, 1])], "b": [other]}, DOMAINS, BEST)


def test_markdown_by_hand(table):
    """SASRec, movies, N@5: seed 1 (1 + 1/log2 3) / 2 = 81.55 %, seed 2 (1 + 1/log2 5) / 2 = 71.53 %; mean 76.54."""
    page = files(table)["comparison.md"]
    one = (1 + 1 / np.log2(3)) / 2
    two = (1 + 1 / np.log2(5)) / 2
    text = f"**{50 * (one + two):.2f} ± {100 * np.std([one, two], ddof=1):.2f}**"
    assert text in page.splitlines()[8] or text in page
    lines = page.splitlines()
    start = lines.index("## movie")
    rows = {line.split(" | ")[0].removeprefix("| "): line.split(" | ") for line in lines[start + 4 : start + 9]}
    assert rows["SASRec"][1] == "**68.75 ± 8.84**" and rows["GRU4Rec"][1] == "<u>43.75 ± 8.84</u>"
    assert rows["SASRec"][4] == "**34.38 ± 4.42**" and rows["SASRec"][7:10] == ["3.79", "3.23", "3.69"]
    assert rows["Popularity (floor)"][1] == "8.75" and rows["Popularity (floor)"][7:10] == ["-", "-", "-"]
    assert rows["PSJNet (reconstructed): failed"][1:7] == ["-"] * 6
    assert rows["LLM-EMF: cannot run"][1:10] == ["-"] * 6 + ["6.32", "5.35", "5.78"]
    rows = next(line for line in lines[lines.index("## Rows") :] if line.startswith("| SASRec"))
    assert rows == "| SASRec | 2 | 3 | 4 | 6 (2 stopped early) | 5:01 | 1:02 | 65.5 k | lr=1e-3 |"
    assert (
        "PSJNet failed: 6 trials failed: NonFiniteLoss: nan" in page and "LLM-EMF cannot run: no image features" in page
    )
    assert "36,845 + 63,937 items" in page and "closed form" in page


def test_targets_that_were_never_seen_in_training_are_counted(table):
    scenario = table.scenario
    targets, seen = scenario.test.targets, set(scenario.train.items.tolist())
    for index, domain in enumerate(scenario.domains):
        own = [item not in seen for item in targets.tolist() if (item >= scenario.num_x) == bool(index)]
        assert f"{100 * sum(own) / len(own):.1f} % of the {domain} targets" in " ".join(notes_of(table))


def test_systems_that_were_best_at_their_last_epoch_are_named_together():
    results = {name: made_result(name) for name in ("gru4rec", "sasrec", "popularity")}
    for name in ("sasrec", "popularity"):
        for seed in results[name].seeds.values():
            seed.best_epoch = seed.epochs_run
    (note,) = [note for note in notes_of(made_table(**results)) if "onverged" in note]
    assert note.startswith("SASRec: ") and "2 of 2 seeds (4 epochs)" in note, "a closed form has no epochs"
    for seed in results["gru4rec"].seeds.values():
        seed.best_epoch = seed.epochs_run
    (note,) = [note for note in notes_of(made_table(**results)) if "onverged" in note]
    assert note.startswith("GRU4Rec, SASRec: ")


def test_rankings_that_are_the_same_stand_once_but_in_the_csv(monkeypatch):
    """In a small domain the stored candidates are all its items."""
    own = made_ranks
    monkeypatch.setitem(globals(), "made_ranks", lambda ranks: {**(found := own(ranks)), "full": found["sampled"]})
    table = made_table(gru4rec=made_result("gru4rec"), sasrec=made_result("sasrec"))
    written = files(table)
    (head,) = {line for line in written["comparison.md"].splitlines() if line.startswith("| system | MRR")}
    assert head.split(" | ")[1:5] == ["MRR", "NDCG@5", "NDCG@10", "paper (other data) MRR"]
    assert "stored candidates are all" in notes_of(table)[1]
    assert {line["ranked_among"] for line in csv_lines(table)} == {"stored candidates", "all items"}
    assert written["comparison.tex"].count("sampled") == 0


def test_rows_of_which_no_paper_knows_have_no_columns_for_it():
    table = made_table(popularity=made_result("popularity", status="floor"))
    assert table.paper is None and "paper" not in files(table)["comparison.md"]


def test_csv_is_tidy_and_unrounded(table):
    lines = list(csv.DictReader(io.StringIO(files(table)["comparison.csv"])))
    found = {(line["model"], line["domain"], line["ranked_among"], line["metric"]): line for line in lines}
    assert len(found) == len(lines) == 3 * 2 * 2 * 3 + 2
    line = found["sasrec", "movie", "stored candidates", "mrr"]
    assert float(line["mean"]) == pytest.approx(68.75) and line["values"] == "75.0;62.5"
    assert (line["paper"], line["paper_data"], line["against"], line["seeds"]) == ("3.79", "other", "gru4rec", "2")
    assert float(line["difference"]) == pytest.approx(25.0) and float(line["training_seconds"]) == 62
    assert found["sasrec", "movie", "all items", "mrr"]["paper"] == ""
    assert found["psjnet", "", "", ""]["outcome"] == "failed"
    assert found["llm_emf", "", "", ""]["reason"] == "no image features"


def test_latex_has_as_many_cells_in_every_row(table):
    text = files(table)["comparison.tex"]
    rows = [line for line in text.splitlines() if line.endswith(r"\\") and "multicolumn" not in line]
    assert len(rows) == 1 + 2 * 5 and {line.count(" & ") for line in rows} == {11}
    assert r"SASRec & \textbf{68.75\,$\pm$\,8.84}" in text and r"GRU4Rec & \underline{43.75" in text
    assert text.count("{") == text.count("}") and "paper (other data)" in text
    assert "_" not in text.replace(r"\_", "")


def test_special_characters_do_not_break_a_format(table):
    table.rows[3].result.reason = "a | b & c_d < 5 %\nnext"
    assert r"a | b \& c\_d $<$ 5 \%" in files(table)["comparison.tex"]


@pytest.mark.parametrize(("width", "factor", "numbers"), [(160, 1, 9), (100, 0.1, 5), (90, 1, 4)])
def test_the_terminal_gets_what_fits(table, width, factor, numbers):
    for row in table.rows:
        row.cells = {
            place: dataclasses.replace(
                cell, mean=factor * cell.mean, deviation=cell.deviation and factor * cell.deviation
            )
            for place, cell in row.cells.items()
        }
    out = io.StringIO()
    console = Console(file=out, width=width)
    blocks = blocks_of(table)
    made = for_terminal(blocks[0], width)
    console.print(made)
    console.print(for_terminal(blocks[-1], width))
    text = out.getvalue()
    assert all(len(line.rstrip()) <= width for line in text.splitlines()) and "…" not in text
    assert len(made.columns) == numbers + 3, "systems, difference and p stand beside the numbers"
    for word in ("68.75 ± 8.84" if factor == 1 else " 6.88 ± 0.88", "3.79", "(other", "cannot run", "failed"):
        assert word in text, word


def test_the_heading_of_short_names_is_not_broken_within_a_word():
    cells = {"in the sweep": "0.0346", "validation": "0.0335", "sd": "0.0034", "95 % interval": "0.0029 to 0.0642"}
    cells |= {"p": "leader", "seeds": "2", "best epoch": "1"}
    block = Block("Validation", [{"trial": Cell("t05", ""), **{name: Cell(text, "") for name, text in cells.items()}}])
    out = io.StringIO()
    Console(file=out, width=80).print(for_terminal(block, 80))
    assert "Validation" in out.getvalue()


def test_a_scenario_of_other_domains_has_no_paper_columns():
    scenario = dataclasses.replace(tiny_scenario(), domains=("toy", "game"))
    result = made_result("sasrec")
    metrics = summarise(made_ranks([1, 2, 4, 5, 10]), ("toy", "game"), "test")
    result.seeds = {1: SeedResult(metrics=metrics, best_epoch=1, epochs_run=1, seconds=0.0)}
    table = made_table(scenario, sasrec=result)
    assert "paper" not in files(table)["comparison.md"] and "paper" not in files(table)["comparison.tex"]


def test_the_papers_data_is_known_by_its_sizes():
    scenario = tiny_scenario()
    small = MOVIE_BOOK.model_copy(update={"num_items": (3, 3), "num_train": 2, "num_test": (1, 1)})
    assert small.is_of(scenario) and not MOVIE_BOOK.is_of(scenario)
    for change in ({"num_items": (3, 4)}, {"num_train": 3}, {"num_test": (2, 0)}):
        assert not small.model_copy(update=change).is_of(scenario), change


def test_the_papers_numbers():
    """Its text: LLM-EMF's gain over the best earlier system on Food MRR is 0.69 points; over C2DSR's own paper 0.33."""
    food = {model: FOOD_KITCHEN.value(model, "test/food/mrr") for model in FOOD_KITCHEN.rows}
    best = max(value for model, value in food.items() if model not in ("llm_emf", "c2dsr"))
    assert food["llm_emf"] - best == pytest.approx(0.69) and food["llm_emf"] - food["c2dsr"] == pytest.approx(0.33)
    assert (
        MOVIE_BOOK.value("tri_cdr", "test/book/ndcg_10") == 2.22 and MOVIE_BOOK.value("c2dsr", "test/book/mrr") is None
    )
    for table in (FOOD_KITCHEN, MOVIE_BOOK):
        assert all(len(row) == 6 for row in table.rows.values()) and set(table.rows) <= set(NAMES)
        assert all(row[2] > row[1] and row[5] > row[4] for row in table.rows.values()), "NDCG grows with its cut"


def test_table_order():
    assert in_table_order(["llm_emf", "my_own", "sasrec", "item_knn"]) == ["item_knn", "sasrec", "my_own", "llm_emf"]
    assert set(MODELS) <= set(NAMES), "a system lacks its name in tables"


def test_metrics_beside_accuracy_are_listed_best_first():
    systems = {name: made_result(name) for name in ("sasrec", "gru4rec", "popularity")}
    assert not side_note(made_table(**systems)), "of a former version"
    for name, (per_item, share) in {"sasrec": (0.1, 0.25), "gru4rec": (0.2, 0.5)}.items():
        for seed, found in systems[name].seeds.items():
            found.metrics |= {"test/movie/mrr_per_item": per_item + seed / 100, "test/movie/coverage_10": share}
    table = made_table(**systems)
    assert "movie: GRU4Rec 21.50 / 50.0, SASRec 11.50 / 25.0." in side_note(table) and side_note(table) in notes_of(
        table
    )
