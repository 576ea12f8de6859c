"""The reader of plain histories: formats, domains, repeats, bad files, and the counts of the real data."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from llmemf.errors import InputError
from llmemf.scenarios.histories import read_histories
from llmemf.scenarios.reader_options import HistoryOptions
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

ITEMS = "1\tToy\tA1\tRed ball\n2\tGame\tB2\n3\tToy\tA3\n4\tGame\tB4\tChess\tlong\tp.png\n5\tGame\tB5\n"
HISTORIES = "ann\t1,2,3,4,5\nbob\t5,4,1,2\n"


def read(folder: Path, histories: str = HISTORIES, items: str = ITEMS, **options) -> Scenario:
    folder.mkdir(exist_ok=True)
    (folder / "mix.txt").write_text(histories)
    (folder / "items.tsv").write_text(items)
    names = {key: options.pop(key) for key in ("domains", "labels") if key in options}
    name = options.pop("name", "tiny")
    return read_histories(folder / "mix.txt", folder / "items.tsv", name, **names, options=HistoryOptions(**options))


def external(scenario: Scenario, sequences: Sequences) -> list[list[str]]:
    return [scenario.items.external_id[sequences.row(i)].tolist() for i in range(len(sequences))]


def test_items_are_ordered_by_domain_and_histories_are_split_leave_last_out(tmp_path):
    scenario = read(tmp_path)
    assert scenario.domains == ("toy", "game") and (scenario.num_x, scenario.num_y) == (2, 3)
    assert scenario.items.external_id.tolist() == ["A1", "A3", "B2", "B4", "B5"]
    assert scenario.items.title.tolist() == ["Red ball", "", "", "Chess", ""]
    assert (scenario.items.description[3], scenario.items.image[3]) == ("long", "p.png")
    assert external(scenario, scenario.test) == [["A1", "B2", "A3", "B4", "B5"], ["B5", "B4", "A1", "B2"]]
    assert external(scenario, scenario.valid) == [["A1", "B2", "A3", "B4"], ["B5", "B4", "A1"]]
    assert external(scenario, scenario.train) == [["A1", "B2", "A3"], ["B5", "B4"]]
    assert scenario.user_ids.tolist() == ["ann", "bob"]
    assert (scenario.train.times == -1).all() and (scenario.test.times == -1).all()
    assert scenario.candidates["test"].tolist() == [[2, 3], [3, 4]]
    scenario.validate()


@pytest.mark.parametrize(
    "histories",
    [
        "ann 1 2 3 4 5\nbob 5 4 1 2\n",
        "ann,1,2,3,4,5\nbob,5,4,1,2\n",
        "ann\t1 2 3 4 5\nbob\t5, 4, 1, 2\n",
        "ann\t1\t2\t3\t4\t5\r\n\r\nbob\t5\t4\t1\t2\r\n",
        "ann 1,2,3,4,5\nbob 5,4,1,2",
    ],
)
def test_separators_make_no_difference(tmp_path, histories):
    assert read(tmp_path / "a", histories).fingerprint == read(tmp_path / "b").fingerprint


def test_a_header_may_reorder_the_columns_and_add_others(tmp_path):
    table = "id\ttitle\tasin\tprice\tdomain\n"
    for row in ITEMS.splitlines():
        cells = row.split("\t") + [""] * 3
        table += f"{cells[0]}\t{cells[3]}\t{cells[2]}\t9.99\t{cells[1]}\n"
    scenario = read(tmp_path, items=table)
    assert scenario.items.external_id.tolist() == ["A1", "A3", "B2", "B4", "B5"]
    assert scenario.items.title.tolist() == ["Red ball", "", "", "Chess", ""]


def test_domain_names_decide_which_domain_is_x(tmp_path):
    scenario = read(tmp_path, domains=("game", "toy"))
    assert scenario.domains == ("game", "toy") and scenario.num_x == 3
    assert scenario.items.external_id.tolist() == ["B2", "B4", "B5", "A1", "A3"]
    assert external(scenario, scenario.train) == [["A1", "B2", "A3"], ["B5", "B4"]]
    renamed = read(tmp_path, domains=("board", "play"), labels=("Game", "TOY"))
    assert renamed.domains == ("board", "play") and renamed.items.external_id[0] == "B2"


@pytest.mark.parametrize(
    ("repeats", "expected"),
    [
        ("keep", ["A1", "B2", "A1", "A3", "B2", "B4", "A1"]),
        ("first", ["A1", "B2", "A3", "B4"]),
        ("last", ["A3", "B2", "B4", "A1"]),
    ],
)
def test_repeats_inside_a_history(tmp_path, repeats, expected):
    scenario = read(tmp_path, "ann\t1,2,1,3,2,4,1\n", repeats=repeats)
    assert external(scenario, scenario.test) == [expected]
    assert scenario.source["interactions"] == 7 and scenario.source["repeated_interactions"] == 3


def test_short_histories_are_skipped_and_counted(tmp_path):
    histories = HISTORIES + "cid\t1,2,3\ndan\t1,1,1,2\n"
    scenario = read(tmp_path, histories, repeats="first")
    assert scenario.user_ids.tolist() == ["ann", "bob"]
    assert scenario.source["skipped_short_users"] == 2 and scenario.source["users_read"] == 4
    shorter = read(tmp_path, histories, min_length=3)
    assert shorter.user_ids.tolist() == ["ann", "bob", "cid", "dan"]
    assert len(shorter.test) == len(shorter.valid) == 4 and len(shorter.train) == 3
    assert len(read(tmp_path, histories, min_length=5).test) == 1


def test_long_histories_stay_whole(tmp_path):
    long = ",".join(str(1 + i % 5) for i in range(700))
    assert read(tmp_path, f"ann\t{long}\n").test.lengths.tolist() == [700]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"histories": "ann\t1,2,3,4\nbob\n"}, r"mix.txt:2: expected USER<TAB>ITEM,ITEM,..., got 'bob'"),
        ({"histories": "ann\t1,2,,4\n"}, r"mix.txt:1: expected USER<TAB>ITEM,ITEM,..., got 'ann\\t1,2,,4'"),
        ({"histories": "\t1,2,3,4\n"}, r"mix.txt:1: expected USER"),
        ({"histories": "ann\t1,2,3,4\n\nbob\t1,2,6,4\n"}, r"mix.txt:3: item id '6' is not in .*items.tsv"),
        ({"histories": "ann\t1,2,3,4\nann\t1,2,3,5\n"}, r"mix.txt:2: user 'ann' stands already on line 1"),
        ({"histories": "ann\t1,2,3\n"}, r"no history has 4 items or more; lower --min-length"),
        ({"histories": "ann\t1,2,3\n", "min_length": 3}, r"no history is long enough for train"),
        ({"histories": ""}, r"mix.txt is empty"),
        ({"items": ITEMS + "2\tToy\tA9\n"}, r"items.tsv:6: item id '2' stands already on line 2"),
        ({"items": ITEMS + "6\ttoy\tA3\n"}, r"items.tsv:6: the external id 'A3' .* on line 3"),
        ({"items": ITEMS + "B4\tGame\n"}, r"items.tsv:6: the external id 'B4' .* on line 4"),
        ({"items": ITEMS + "6\tToy\tA6\tt\td\t../p.png\n"}, r"items.tsv:6: .*'\.\./p\.png'"),
        ({"items": ITEMS + "6\tBook\tC6\n"}, r"items.tsv:6: domain 'Book' is none of Toy,Game"),
        ({"items": ITEMS + "6\n"}, r"items.tsv:6: expected ID<TAB>DOMAIN"),
        ({"items": ITEMS + "6\tToy\tA6\ta\tb\tc\td\n"}, r"items.tsv:6: expected at most 6 tab-separated cells"),
        ({"items": ""}, r"items.tsv is empty"),
        ({"items": "id\tdomain\n"}, r"items.tsv lists no item"),
        ({"items": "1\tToy\tA1\n", "domains": ("toy", "game")}, r"domain 'game' is empty: .*lists no item of it"),
        ({"items": "1\tToy\tA1\n"}, r"two different domains are needed.*\['Toy'\] only"),
        ({"domains": ("toi", "game")}, r"items.tsv:1: domain 'Toy' is none of toi,game: did you mean 'toi'\?"),
        ({"repeats": "all"}, r"repeats 'all': choose one of keep, last, first"),
        ({"min_length": 1}, r"--min-length 1"),
        ({"candidates": 0}, r"--candidates 0"),
        ({"name": "a/b"}, r"scenario name 'a/b'"),
    ],
)
def test_bad_input_is_named_with_its_place(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        read(tmp_path, **changes)


def test_one_external_id_may_stand_in_both_domains(tmp_path):
    scenario = read(tmp_path, items=ITEMS + "6\tGame\tA1\n")
    assert scenario.items.external_id.tolist() == ["A1", "A3", "B2", "B4", "B5", "A1"]


def test_names_that_look_like_missing_values_are_names(tmp_path):
    scenario = read(tmp_path, "NaN\t1,2,3,4,5\nnull\t5,4,1,2\n")
    assert Scenario.load(scenario.save(tmp_path / "data")).user_ids.tolist() == ["NaN", "null"]


def test_gzip_is_read_whatever_the_name_ends_in(tmp_path):
    plain = read(tmp_path)
    for name in ("mix.txt", "items.tsv"):
        (tmp_path / name).write_bytes(gzip.compress((tmp_path / name).read_bytes()))
    packed = read_histories(tmp_path / "mix.txt", tmp_path / "items.tsv", name="tiny")
    assert packed.fingerprint == plain.fingerprint
    (tmp_path / "mix.txt").write_bytes((tmp_path / "mix.txt").read_bytes()[:-9])
    with pytest.raises(InputError, match="mix.txt:.*compressed data is damaged"):
        read_histories(tmp_path / "mix.txt", tmp_path / "items.tsv", name="tiny")


def test_a_missing_file_is_an_input_error(tmp_path):
    with pytest.raises(InputError, match="cannot read .*none.tsv: No such file"):
        read_histories(tmp_path / "mix.txt", tmp_path / "none.tsv", "tiny")


@pytest.mark.data
def test_real_histories_have_the_documented_counts(real_data):
    folder = real_data / "toy_game"
    scenario = read_histories(folder / "mix.txt", folder / "items.tsv", "toy_game", ("toy", "game"))
    assert (scenario.num_x, scenario.num_y, scenario.num_users) == (37868, 11735, 7996)
    assert scenario.source["interactions"] == len(scenario.test.items) == 197358
    assert (scenario.test.lengths.min(), scenario.test.lengths.max()) == (6, 626)
    assert len(scenario.train) == len(scenario.valid) == len(scenario.test) == 7996
    first = "B00HZMFDGW"
    assert scenario.items.external_id[0] == first and scenario.source["repeated_interactions"] > 0
    scenario.validate()
