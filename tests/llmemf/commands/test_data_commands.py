"""The `llmemf data` commands as a user meets them: output, exit codes, one line per mistake."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from llmemf.scenarios.scenario import Scenario

DAY = 86400
BROKEN_MANIFESTS = {
    "broken": b"{",
    "list": b"[]",
    "nothing": b"null",
    "latin": '{"name": "\u00e4"}'.encode("latin-1"),
    "future": b'{"format": 2}',
    "partial": b'{"format": 1, "name": "partial", "domains": ["film"]}',
}


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Published windows of 3 users over 5 films and 6 books, and the same as plain histories."""
    folder = tmp_path / "raw"
    folder.mkdir()
    (folder / "items_x.txt").write_text("".join(f"0\tM{i}\t{i}\n" for i in range(5)))
    (folder / "items_y.txt").write_text("".join(f"0\tB{i}\t{i}\n" for i in range(6)))
    (folder / "userlist.txt").write_text("ann\t0\nbob\t1\ncid\t2\n")
    (folder / "items.tsv").write_text(
        "id\tdomain\tasin\ttitle\n0\tfilm\tM0\tThe [red] Balloon\n"
        + "".join(f"{i}\tfilm\tM{i}\n" for i in range(1, 5))
        + "".join(f"{i}\tbook\tB{i - 5}\n" for i in range(5, 11))
    )
    windows = {0: [0, 5, 1, 6, 2], 1: [7, 3, 8, 4, 9], 2: [10, 0, 5, 1]}
    (folder / "test_new.txt").write_text(
        "".join(
            f"{user}\t{user}\t" + "\t".join(f"{item}|{(10 + place) * DAY}|d|" for place, item in enumerate(row)) + "\n"
            for user, row in windows.items()
        )
    )
    (folder / "mix.txt").write_text("".join(f"{u}\t{','.join(map(str, row))}\n" for u, row in windows.items()))
    return folder


def next_steps(out: str) -> list[str]:
    """The commands that a user is told to type next, without the program's name, which depends on the installation."""
    lines = [line for line in out.splitlines() if line.startswith("next: ")]
    return [line[re.search(r" (data|features|sweep) ", line).start() + 1 :] for line in lines]


def import_tiny(llmemf, raw, *more) -> tuple[int, str, str]:
    return llmemf(
        "data", "import", "windows", raw, "--name", "tiny", "--domains", "film,book", "--split", "leave_last_out", *more
    )


def test_import_windows_writes_a_scenario_and_names_the_next_commands(llmemf, raw, tmp_path):
    code, out, err = import_tiny(llmemf, raw)
    assert (code, err) == (0, "")
    assert "3 cases, targets 2 film + 1 book" in out
    assert next_steps(out) == ["features offline tiny"] and "also: " in out and "data audit tiny" in out
    scenario = Scenario.load(tmp_path / "data" / "tiny")
    assert scenario.fingerprint[:16] in out
    assert scenario.items.title[0] == "The [red] Balloon"
    assert scenario.test.targets.tolist() == [2, 9, 1]


def test_both_readers_agree_on_the_same_data(llmemf, raw, tmp_path):
    import_tiny(llmemf, raw)
    code, out, _ = llmemf(
        "data", "import", "histories", raw / "mix.txt", "--items", raw / "items.tsv", "--name", "plain"
    )  # fmt: skip
    assert code == 0 and "3 cases, targets 2 film + 1 book" in out
    windows, plain = Scenario.load(tmp_path / "data/tiny"), Scenario.load(tmp_path / "data/plain")
    assert plain.domains == ("film", "book")
    for name in ("train", "valid", "test"):
        assert np.array_equal(windows.split(name).items, plain.split(name).items)
    for name in ("valid", "test"):
        assert np.array_equal(windows.candidates[name], plain.candidates[name])


def test_the_data_root_comes_from_the_option_or_the_environment(llmemf, raw, tmp_path, monkeypatch):
    code, out, _ = import_tiny(llmemf, raw, "--data-root", tmp_path / "my data")
    assert code == 0 and next_steps(out)[-1] == f"features offline tiny --data-root '{tmp_path / 'my data'}'"
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "other"))
    assert llmemf("data", "show", "tiny")[0] == 2
    assert import_tiny(llmemf, raw)[0] == 0
    assert (tmp_path / "other/tiny/manifest.json").exists() and not (tmp_path / "data").exists()


def test_items_without_content_are_pointed_out(llmemf, raw):
    (raw / "items.tsv").unlink()
    _, out, _ = import_tiny(llmemf, raw)
    assert next_steps(out) == ["sweep --scenario tiny"] and "features offline" not in out


def test_images_of_the_item_table_are_taken_along(llmemf, raw, tmp_path):
    (raw / "covers").mkdir()
    (raw / "covers" / "m.jpg").write_bytes(b"picture")
    (raw / "items.tsv").write_text("id\tdomain\tasin\timage\n0\tfilm\tM0\tcovers/m.jpg\n")
    assert import_tiny(llmemf, raw)[0] == 0
    assert (tmp_path / "data/tiny/images/0.jpg").read_bytes() == b"picture"


def test_import_sample_says_where_the_sample_is(llmemf, raw, tmp_path, monkeypatch):
    import_tiny(llmemf, raw)
    roots = []

    def ready_made(data_root) -> Scenario:
        roots.append(data_root)
        return Scenario.load(tmp_path / "data/tiny")

    monkeypatch.setattr("llmemf.scenarios.sample.prepare_sample", ready_made)
    code, out, err = llmemf("data", "import", "sample", "--data-root", "elsewhere")
    assert (code, err, roots) == (0, "", [Path("elsewhere")])
    assert out.startswith("tiny is ready in ") and next_steps(out) == ["data show tiny --data-root elsewhere"]


def test_list_shows_every_scenario_also_a_damaged_one(llmemf, raw, tmp_path):
    code, out, _ = llmemf("data", "list")
    assert code == 0 and "No scenario is prepared in data" in out
    import_tiny(llmemf, raw)
    for name, content in BROKEN_MANIFESTS.items():
        (tmp_path / "data" / name).mkdir()
        (tmp_path / "data" / name / "manifest.json").write_bytes(content)
    (tmp_path / "data/folder/manifest.json").mkdir(parents=True)
    (tmp_path / "data/tiny/features/text.offline").mkdir(parents=True)
    (tmp_path / "data/tiny/features/text.offline/manifest.json").write_text("{}")
    code, out, err = llmemf("data", "list")
    assert code == 0
    for expected in ("tiny", "5 film", "6 book", "text.offline"):
        assert expected in out
    for name in (*BROKEN_MANIFESTS, "folder"):
        assert re.search(rf"^ *{name} .*cannot be read", out, flags=re.MULTILINE)
        (line,) = [line for line in err.splitlines() if f"data/{name}/manifest.json" in line]
        assert line.startswith("note: ")
        assert_one_line(llmemf("data", "show", name), f"data/{name}/manifest.json")
    assert Scenario.load(tmp_path / "data/tiny").fingerprint[:8] in out


def test_show_prints_facts_and_three_histories_with_titles(llmemf, raw, tmp_path):
    import_tiny(llmemf, raw)
    code, out, _ = llmemf("data", "show", "tiny")
    assert code == 0
    assert Scenario.load(tmp_path / "data/tiny").fingerprint[:16] in out
    for user in ("ann", "bob", "cid"):
        assert f"user {user}" in out
    assert out.count("The [red] Balloon") == 2, "brackets in titles are no markup"
    assert "1970-01-11" in out and max(map(len, out.splitlines())) <= 80


def test_audit_prints_counts_and_leaves_with_0_when_clean(llmemf, raw):
    import_tiny(llmemf, raw)
    code, out, err = llmemf("data", "audit", "tiny")
    assert (code, err) == (0, "") and out.endswith("No leak found.\n")
    for expected in ("domains", "splits", "candidates per case", "leak check", "features: none", "1970-01-11"):
        assert expected in out
    assert max(map(len, out.splitlines())) <= 80
    assert json.loads(llmemf("data", "audit", "tiny", "--json")[1])["leaks"] == []


def test_audit_leaves_with_1_and_clear_words_when_there_is_a_leak(llmemf, raw):
    (raw / "train_new.txt").write_bytes((raw / "test_new.txt").read_bytes())
    (raw / "val_new.txt").write_bytes((raw / "test_new.txt").read_bytes())
    assert llmemf("data", "import", "windows", raw, "--name", "leaky", "--domains", "film,book")[0] == 0
    code, out, err = llmemf("data", "audit", "leaky")
    assert code == 1 and "No leak found" not in out
    assert "LEAK: 3 of 3 test cases have their target in a training sequence of the same user\n" in err


def assert_one_line(result: tuple[int, str, str], *expected: str) -> None:
    code, _, err = result
    assert code == 2
    assert err.startswith("error: ") and err.count("\n") == 1
    for part in expected:
        assert part in err


def test_mistakes_are_one_line_and_exit_code_2(llmemf, raw, tmp_path):
    assert_one_line(llmemf("data", "show", "tiny"), "unknown scenario 'tiny'", "no scenario is prepared")
    import_tiny(llmemf, raw)
    assert_one_line(llmemf("data", "audit", "tinny"), "unknown scenario 'tinny'", "did you mean 'tiny'?")
    assert_one_line(import_tiny(llmemf, raw), "exists already", "--overwrite")
    assert import_tiny(llmemf, raw, "--overwrite")[0] == 0
    assert_one_line(import_tiny(llmemf, raw, "--domains", "film"), "--domains 'film'", "movie,book")
    assert_one_line(
        import_tiny(llmemf, raw, "--split", "published", "--name", "new"), "no train windows", "--split leave_last_out"
    )
    assert_one_line(import_tiny(llmemf, tmp_path / "nowhere", "--name", "new"), "is not a folder")
    (raw / "test_new.txt").write_text("0\t0\t1|1|d|\t2\n")
    assert_one_line(
        import_tiny(llmemf, raw, "--name", "new"), "test_new.txt:1: expected ITEM|UNIXTIME|DATE|", "got '2'"
    )
    (raw / "test_new.txt").write_text("0\t0\t1|1|d|\t11|2|d|\n")
    assert_one_line(import_tiny(llmemf, raw, "--name", "new"), "item id 11 is out of range 0..10")
    (raw / "items_y.txt").write_text("")
    assert_one_line(import_tiny(llmemf, raw, "--name", "new"), "items_y.txt is empty")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["tiny"], "nothing half-written"


def test_a_file_in_the_place_of_the_data_root_is_one_line(llmemf, raw, tmp_path):
    (tmp_path / "data").write_text("in the way")
    assert_one_line(import_tiny(llmemf, raw), "tiny cannot be written")


def test_unknown_options_and_values_leave_with_2(llmemf, raw):
    assert llmemf("data", "import", "windows", raw, "--nmae", "x")[0] == 2
    assert import_tiny(llmemf, raw, "--tie-break", "first")[0] == 2
    assert import_tiny(llmemf, raw, "--candidates", "0")[0] == 2
    assert llmemf("data", "import", "histories", raw / "mix.txt", "--items", raw / "items.tsv", "--name", "p",
                  "--repeats", "all")[0] == 2  # fmt: skip


def test_the_commands_start_without_heavy_libraries(raw, tmp_path):
    """Readers, audit and their commands import neither torch nor scikit-learn nor the sweep's libraries."""
    script = (
        "import sys; from llmemf.__main__ import main\n"
        f"sys.argv[1:] = ['data', 'import', 'windows', {str(raw)!r}, '--name', 't', '--domains', 'a,b', "
        f"'--split', 'leave_last_out', '--data-root', {str(tmp_path / 'd')!r}]\n"
        "try: main()\nexcept SystemExit: pass\n"
        "import llmemf.scenarios.audit, llmemf.scenarios.histories\n"
        "print('loaded', sorted({'torch', 'sklearn', 'ray', 'optuna', 'mlflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    assert "t written to" in done.stdout and done.stdout.splitlines()[-1] == "loaded []"


def test_the_home_folder_is_meant_by_a_tilde(llmemf, raw, tmp_path, monkeypatch):
    """Also where no shell replaced it, as in `--data-root=~/data` or in the environment."""
    monkeypatch.setenv("HOME", str(tmp_path))
    code, _, err = llmemf("data", "import", "histories", "~/raw/mix.txt", "--items=~/raw/items.tsv", "--name", "tiny",
                          "--data-root=~/mine")  # fmt: skip
    assert (code, err) == (0, "")
    monkeypatch.setenv("LLMEMF_DATA_ROOT", "~/mine")
    assert llmemf("data", "show", "tiny")[0] == 0
    assert (tmp_path / "mine/tiny").is_dir() and not (tmp_path / "~").exists()


def test_a_list_of_long_names_keeps_every_hash(llmemf, raw, tmp_path):
    name = "a_scenario_with_a_name_of_many_letters_and_more"
    options = ("--domains", "filmography,bibliography", "--split", "leave_last_out")
    assert llmemf("data", "import", "windows", raw, "--name", name, *options)[0] == 0
    out = llmemf("data", "list")[1]
    assert Scenario.load(tmp_path / "data" / name).fingerprint[:8] in out
    assert max(map(len, out.splitlines())) <= 80
