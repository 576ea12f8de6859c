"""The reader of published windows: layout, ties, splits, bad files, and the counts of the real data."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from llmemf.errors import InputError
from llmemf.scenarios import windows
from llmemf.scenarios.reader_options import WindowOptions
from llmemf.scenarios.sequences import Sequences
from llmemf.scenarios.windows import in_time_order, read_sequence_file, tied_across_domains

NUM_X, NUM_Y = 4, 5


def read_windows(folder, name, domains=("x", "y"), **options):
    return windows.read_windows(folder, name, domains, WindowOptions(**options))


DAY = 86400

# (user, window, items of the prefix, last X, last Y); an item is (id, day). X is 0..3, Y is 4..8.
TRAIN = [
    (0, 0, [(0, 1), (4, 1), (1, 3)], (2, 4), (5, 3)),
    (1, 2, [(3, 1), (8, 2)], (0, 5), (7, 5)),
]
VALID = [
    (2, 4, [(0, 1), (4, 2), (1, 2)], (2, 5), (6, 5)),
    (1, 3, [(5, 20), (6, 21)], (1, 23), (4, 22)),
]
TEST = [(0, 1, [(0, 10), (5, 10), (4, 11)], (3, 13), (7, 12))]


def line(user, window, prefix, last_x, last_y) -> str:
    fields = [f"{item}|{day * DAY}|1970-01-{day + 1:02d} 08:00:00|" for item, day in [*prefix, last_x, last_y]]
    return "\t".join([str(user), str(window), *fields])


def write_folder(folder: Path, naming: str = "published", **files: str | None) -> Path:
    """The fixture's files under one of the naming schemes; `files` replaces or removes some of them."""
    folder.mkdir(parents=True, exist_ok=True)
    names = {
        "published": ("Alist.txt", "Blist.txt", "traindata_new.txt", "validdata_new.txt", "testdata_new.txt"),
        "xy": ("items_x.txt", "items_y.txt", "train_new.txt", "val_new.txt", "test_new.txt"),
        "ab": ("items_a.txt", "items_b.txt", "train_new.txt", "val_new.txt", "test_new.txt"),
    }[naming]
    content = {
        "x": "".join(f"{90 + i}\tX{i}\t{i}\n" for i in range(NUM_X)),
        "y": "".join(f"{70 + i}\tY{i}\t{i}\n" for i in range(NUM_Y)),
        "train": "\n".join(line(*row) for row in TRAIN) + "\n",
        "valid": "\n".join(line(*row) for row in VALID) + "\n",
        "test": "\n".join(line(*row) for row in TEST) + "\n",
        "users": "RA\t0\nRB\t1\nRC\t2\n",
        "items": None,
    } | files
    for role, name in zip(
        ("x", "y", "train", "valid", "test", "users", "items"), (*names, "userlist.txt", "items.tsv")
    ):
        if content[role] is not None:
            (folder / name).write_text(content[role])
    return folder


def rows(sequences: Sequences) -> list[list[int]]:
    return [sequences.row(i).tolist() for i in range(len(sequences))]


@pytest.mark.parametrize("naming", ["published", "xy", "ab"])
def test_published_windows_come_back_in_time_order(tmp_path, naming):
    scenario = read_windows(write_folder(tmp_path / "f", naming), "tiny", ("movie", "book"))
    assert (scenario.num_x, scenario.num_y, scenario.num_users) == (4, 5, 3)
    # Same day: prefix first, then last X, then last Y.
    assert rows(scenario.train) == [[0, 4, 1, 5, 2], [3, 8, 0, 7]]
    assert rows(scenario.valid) == [[0, 4, 1, 2, 6], [5, 6, 4, 1]]
    assert rows(scenario.test) == [[0, 5, 4, 7, 3]]
    assert (scenario.test.times // DAY).tolist() == [10, 10, 11, 12, 13]
    assert scenario.items.external_id.tolist() == ["X0", "X1", "X2", "X3", "Y0", "Y1", "Y2", "Y3", "Y4"]
    assert scenario.user_ids[scenario.valid.users].tolist() == ["RC", "RB"]
    assert scenario.candidates["test"].tolist() == [[0, 1, 2, -1]]
    assert scenario.source["interactions"] == 5 + 4 + 5 + 4 + 5
    scenario.validate()


def test_without_a_user_list_the_numbers_are_the_external_ids(tmp_path):
    folder = write_folder(tmp_path, users=None, test=line(77, 1, [(0, 1)], (1, 2), (4, 2)) + "\n")
    scenario = read_windows(folder, "tiny")
    assert scenario.user_ids.tolist() == ["0", "1", "2", "77"]
    assert scenario.user_ids[scenario.test.users].tolist() == ["77"]
    assert scenario.user_ids[scenario.train.users].tolist() == ["0", "1"]


def test_leave_last_out_cuts_the_latest_window_of_every_user(tmp_path):
    scenario = read_windows(write_folder(tmp_path), "tiny", split="leave_last_out")
    by_user = {
        name: dict(zip(scenario.user_ids[s.users], rows(s)))
        for name, s in (("v", scenario.valid), ("t", scenario.test))
    }
    assert by_user["t"] == {"RA": [0, 5, 4, 7, 3], "RB": [5, 6, 4, 1], "RC": [0, 4, 1, 2, 6]}
    assert by_user["v"] == {"RA": [0, 5, 4, 7], "RB": [5, 6, 4], "RC": [0, 4, 1, 2]}
    training = sorted(zip(scenario.user_ids[scenario.train.users], rows(scenario.train)))
    assert training == [
        ("RA", [0, 4, 1, 5, 2]),
        ("RA", [0, 5, 4]),
        ("RB", [3, 8, 0, 7]),
        ("RB", [5, 6]),
        ("RC", [0, 4, 1]),
    ]


def test_leave_last_out_works_on_the_files_that_exist_and_drops_what_is_too_short(tmp_path):
    short = "2\t9\t0|86400|d|\t4|86400|d|\n" + line(1, 5, [(5, 2)], (1, 3), (4, 4)) + "\n"
    scenario = read_windows(
        write_folder(tmp_path, train=None, valid=None, test=line(*TEST[0]) + "\n" + short),
        "tiny",
        split="leave_last_out",
    )
    assert rows(scenario.test) == [[0, 5, 4, 7, 3], [0, 4], [5, 1, 4]]
    assert rows(scenario.valid) == [[0, 5, 4, 7], [5, 1]]
    assert rows(scenario.train) == [[0, 5, 4]]
    assert scenario.source["dropped"]["train_short"] == 2 and scenario.source["dropped"]["valid_short"] == 1


def test_published_drops_windows_of_one_item_and_counts_them(tmp_path):
    folder = write_folder(tmp_path, train="0\t0\t1|86400|d|\n" + line(*TRAIN[1]) + "\n")
    scenario = read_windows(folder, "tiny")
    assert rows(scenario.train) == [[3, 8, 0, 7]] and scenario.source["dropped"]["train_short"] == 1


def test_random_tie_break_shuffles_ties_only_and_repeats_with_its_seed(tmp_path):
    folder = write_folder(tmp_path)
    targets = Counter()
    for seed in range(200):
        scenario = read_windows(folder, "tiny", tie_break="random", seed=seed)
        assert scenario.valid.row(0)[:1].tolist() == [0] and sorted(scenario.valid.row(0)[1:3]) == [1, 4]
        assert scenario.test.row(0)[2:].tolist() == [4, 7, 3]
        assert (scenario.valid.times // DAY).tolist() == [1, 2, 2, 5, 5, 20, 21, 22, 23]
        targets[int(scenario.valid.targets[0])] += 1
    assert set(targets) == {2, 6} and 60 < targets[2] < 140
    again = [read_windows(folder, "tiny", tie_break="random", seed=7).fingerprint for _ in range(2)]
    assert again[0] == again[1]


def test_drop_leaves_out_the_cases_that_a_tie_across_domains_decides(tmp_path):
    scenario = read_windows(write_folder(tmp_path), "tiny", tie_break="drop")
    assert rows(scenario.valid) == [[5, 6, 4, 1]]
    assert rows(scenario.test) == [[0, 5, 4, 7, 3]]
    assert len(scenario.train) == 2, "ties do not matter in training"
    assert scenario.source["dropped"] == {
        "train_short": 0, "train_ties": 0, "valid_short": 0, "valid_ties": 1, "test_short": 0, "test_ties": 0,
    }  # fmt: skip


def test_drop_in_leave_last_out_looks_at_each_target(tmp_path):
    tied_pair = line(0, 0, [(0, 1), (4, 2)], (1, 5), (5, 5))  # both targets on one day: neither case is decided by time
    tied_valid = line(1, 1, [(0, 1), (4, 2)], (1, 5), (5, 6)).replace(f"4|{2 * DAY}|", f"4|{5 * DAY}|")
    same_domain = line(2, 2, [(0, 1), (4, 2), (5, 6)], (1, 3), (6, 6))
    folder = write_folder(tmp_path, train=None, valid=None, test=f"{tied_pair}\n{tied_valid}\n{same_domain}\n")
    scenario = read_windows(folder, "tiny", split="leave_last_out", tie_break="drop")
    assert rows(scenario.test) == [[0, 4, 1, 5], [0, 4, 1, 5, 6]]
    assert scenario.user_ids[scenario.test.users].tolist() == ["RB", "RC"]
    assert scenario.user_ids[scenario.valid.users].tolist() == ["RC"]
    assert len(scenario.train) == 3


def test_time_order_and_ties_equal_a_plain_implementation():
    rng = np.random.default_rng(0)
    lengths = rng.integers(1, 12, 300)
    items = [rng.integers(0, 9, n).tolist() for n in lengths]
    times = [rng.integers(0, 4, n).tolist() for n in lengths]
    ordered = in_time_order(Sequences.from_rows(np.arange(300), items, times))
    for from_end in (1, 2):
        tied = tied_across_domains(ordered, 4, from_end)
        for i in range(300):
            pairs = sorted(zip(times[i], items[i]), key=lambda pair: pair[0])
            assert ordered.row(i).tolist() == [item for _, item in pairs]
            expected = False
            if len(pairs) >= from_end:
                day = pairs[-from_end][0]
                expected = len({item >= 4 for time, item in pairs if time == day}) == 2
            assert tied[i] == expected


def test_titles_descriptions_and_images_come_from_the_item_table(tmp_path):
    table = "id\tdomain\tasin\ttitle\tsource\timage\tdescription\n"
    table += '5\tY\tY1\tA "quoted" title\tweb\tp/5.png\tlong\n0\tX\tX0\n'
    items = read_windows(write_folder(tmp_path, items=table), "tiny").items
    assert items.title.tolist() == ["", "", "", "", "", 'A "quoted" title', "", "", ""]
    assert items.description[5] == "long" and items.image[5] == "p/5.png"


GOOD = line(*TEST[0])


@pytest.mark.parametrize(
    ("role", "content", "message"),
    [
        ("test", GOOD + "\n0\t1\t3|86400\n", r"testdata_new.txt:2: expected ITEM\|UNIXTIME\|DATE\|.*got '3\|86400'"),
        ("test", GOOD + "\n\n0\t1\tx|1|d|\n", r":3: expected ITEM\|UNIXTIME\|DATE\|.*got 'x\|1\|d\|'"),
        ("test", "0\t1\t1|86400|d|\t\t2|86400|d|\n", r":1: expected ITEM\|UNIXTIME\|DATE\|.*got ''"),
        ("test", "0\t1\t-1|86400|d|\t2|86400|d|\n", r":1: expected ITEM.*got '-1\|86400\|d\|'"),
        ("test", "0\t1\t1|1351641600000|d|\n", r":1: expected ITEM\|UNIXTIME\|DATE\| \(seconds\)"),
        ("test", GOOD + "\n0\t1\n", r":2: expected USER<TAB>WINDOW<TAB>ITEM"),
        ("test", "user\t1\t1|86400|d|\n", r":1: expected USER<TAB>WINDOW"),
        ("valid", GOOD + "\n0\t1\t1|1|d|\t9|2|d|\n", r"validdata_new.txt:2: item id 9 is out of range 0..8"),
        ("train", line(5, 1, [(0, 1)], (1, 2), (4, 2)), r"traindata_new.txt:1: user 5 is not in the user list"),
        ("y", "", r"Blist.txt is empty"),
        ("x", "1\tX0\t0\n2\tX1\n", r"Alist.txt:2: expected OLD_INDEX<TAB>ASIN<TAB>LOCAL_ID, got '2\\tX1'"),
        ("x", "1\tX0\t0\n2\tX1\t0\n", r"Alist.txt:2: local id 0 stands already on line 1"),
        ("x", "1\tX0\t0\n2\tX1\t1\n3\tX0\t2\n", r"Alist.txt:3: the external id 'X0' .* on line 1"),
        ("x", "1\tX0\t0\n2\tX1\t2\n", r"Alist.txt: local ids must be 0..1 for 2 items, 1 is missing"),
        ("users", "RA\t0\nRB\n", r"userlist.txt:2: expected REVIEWER<TAB>USER"),
        ("users", "RA\t0\nRB\t0\n", r"userlist.txt:2: user 0 stands already on line 1"),
        ("items", "id\tdomain\tasin\n9\tY\tY9\n", r"items.tsv:2: item id 9 is out of range 0..8"),
        ("items", "id\tdomain\tasin\n1\tX\tX7\n", r"items.tsv:2: item 1 is 'X7' here but 'X1' in the item list"),
        ("items", "id\ttitle\n1\tX\n", r"items.tsv:1: the header lacks the column 'domain'"),
        ("items", "id\tdomain\tasin\n1\tX\tX1\tmore\n", r"items.tsv:2: expected at most 3 tab-separated cells"),
        ("test", "", r"testdata_new.txt is empty"),
    ],
)
def test_bad_files_are_named_with_their_line(tmp_path, role, content, message):
    with pytest.raises(InputError, match=message):
        read_windows(write_folder(tmp_path, **{role: content}), "tiny", ("movie", "book"))


def test_text_that_is_not_utf8_is_named_with_its_line(tmp_path):
    folder = write_folder(tmp_path)
    with (folder / "testdata_new.txt").open("ab") as file:
        file.write(b"0\t1\t\xff\n")
    with pytest.raises(InputError, match=r"testdata_new.txt:2: expected UTF-8"):
        read_windows(folder, "tiny")


def test_windows_line_ends_and_a_byte_order_mark_do_no_harm(tmp_path):
    expected = read_windows(write_folder(tmp_path / "a"), "tiny").fingerprint
    folder = write_folder(tmp_path / "b")
    for path in folder.iterdir():
        path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b"\n", b"\r\n"))
    assert read_windows(folder, "tiny").fingerprint == expected


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ({"train": None}, {}, r"no train windows \(traindata_new.txt or train_new.txt\).*--split leave_last_out"),
        ({"train": None, "valid": None, "test": None}, {"split": "leave_last_out"}, "holds no windows"),
        ({"x": None}, {}, "no item list of domain X: expected Alist.txt or items_x.txt or items_a.txt"),
        ({}, {"split": "random"}, "split 'random': choose one of published, leave_last_out"),
        ({}, {"tie_break": "first"}, "--tie-break 'first': choose one of file, random, drop"),
        ({}, {"candidates": 0}, "--candidates 0"),
        ({}, {"domains": ("movie", "movie")}, "two different domain names"),
        ({}, {"domains": ("Movie", "book")}, "domain name 'Movie': use lower-case"),
        ({}, {"name": "../elsewhere"}, "scenario name '../elsewhere'"),
    ],
)
def test_missing_files_and_bad_options_name_the_remedy(tmp_path, files, options, message):
    with pytest.raises(InputError, match=message):
        read_windows(write_folder(tmp_path, **files), **({"name": "tiny"} | options))


def test_two_files_for_one_role_and_a_missing_folder_are_refused(tmp_path):
    write_folder(tmp_path / "f")
    write_folder(tmp_path / "f", "xy")
    with pytest.raises(InputError, match="holds both Alist.txt and items_x.txt"):
        read_windows(tmp_path / "f", "tiny")
    with pytest.raises(InputError, match="is not a folder"):
        read_windows(tmp_path / "nowhere", "tiny")


@pytest.mark.data
def test_real_published_windows_have_the_published_targets(real_data):
    num_x, num_items = 36845, 36845 + 63937
    parts = {
        name: in_time_order(read_sequence_file(real_data / "movie_book" / f"{name}_new.txt", num_items))
        for name in ("val", "test")
    }
    assert {name: (len(s), int((s.targets < num_x).sum())) for name, s in parts.items()} == {
        "val": (7644, 2032),
        "test": (7708, 1978),
    }
    users = [set(s.users.tolist()) for s in parts.values()]
    assert not users[0] & users[1] and len(users[0] | users[1]) == 15352
    in_y = parts["test"].targets >= num_x
    assert tied_across_domains(parts["test"], num_x)[in_y].mean() == pytest.approx(0.643, abs=0.0005)


@pytest.mark.data
def test_real_windows_split_leave_last_out_have_the_documented_counts(real_data):
    scenario = read_windows(real_data / "movie_book", "movie_book_windows", ("movie", "book"), split="leave_last_out")
    assert (scenario.num_x, scenario.num_y, scenario.num_users) == (36845, 63937, 15352)
    assert len(scenario.train) == len(scenario.valid) == len(scenario.test) == 15352
    assert len(scenario.train.items) == 117501 and scenario.source["interactions"] == 148205
    targets = scenario.test.targets
    assert (int((targets < 36845).sum()), int((targets >= 36845).sum())) == (4010, 11342)
    assert np.isin(targets, scenario.train.items).mean() == pytest.approx(0.545, abs=0.0005)
    ends = scenario.test.offsets[1:]
    same_day = scenario.test.times[ends - 1] // DAY == scenario.test.times[ends - 2] // DAY
    assert same_day.mean() == pytest.approx(0.618, abs=0.0005)
    assert (scenario.test.lengths.min(), scenario.test.lengths.max()) == (6, 15)
    assert scenario.candidates["valid"].shape == scenario.candidates["test"].shape == (15352, 999)
    shown = (scenario.items.title != "").to_numpy()
    in_x = scenario.test.items < 36845
    assert shown[scenario.test.items[in_x]].mean() == pytest.approx(0.51, abs=0.005)
    assert shown[scenario.test.items[~in_x]].mean() == pytest.approx(0.42, abs=0.005)
    scenario.validate()
