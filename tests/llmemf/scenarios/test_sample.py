"""The embedded sample: its shape, that it is the same everywhere, and that the signal lies where it is said to lie.

The signal is shown with what lies on disk: co-occurrence and transitions counted in the training sequences, cosines of the
stored text and image features. The weights of the parts are fitted on one of {valid, test} by a conditional logit and judged
on the other, by MRR on the stored candidates.
"""

import hashlib
import json
import logging
import shutil
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from PIL import Image
from scipy import sparse
from scipy.optimize import minimize

from llmemf.errors import InputError
from llmemf.features.finding import find_features
from llmemf.scenarios import sample, sample_process, sample_texts
from llmemf.scenarios.sample import make_sample, prepare_sample
from llmemf.scenarios.sample_process import NUM_FILMS, NUM_ITEMS
from llmemf.scenarios.scenario import SPLITS, Scenario

DECAY = 0.75


@pytest.fixture(scope="module")
def prepared(sample_root):
    return Scenario.load(sample_root / "sample")


@pytest.fixture(scope="module")
def traits():
    return sample_process.draw_traits()


@pytest.fixture(scope="module")
def windows(traits):
    return sample_process.draw_windows(traits)


def test_counts_lengths_and_times(prepared):
    assert (prepared.num_users, prepared.num_x, prepared.num_y) == (2000, 700, 800)
    assert prepared.domains == ("movie", "book") and prepared.source["generated"] is True
    assert len(prepared.valid) == len(prepared.test) == 2000
    assert 4500 <= len(prepared.train) <= 6000
    for name in ("train", "valid", "test"):
        sequences = prepared.split(name)
        assert sequences.lengths.min() == 6 and sequences.lengths.max() == 15
        in_y = np.add.reduceat(sequences.items >= NUM_FILMS, sequences.offsets[:-1])
        assert in_y.min() >= 3 and (sequences.lengths - in_y).min() >= 3
        steps = np.diff(sequences.times)
        steps[sequences.offsets[1:-1] - 1] = 1
        assert (steps > 0).all()
    assert prepared.train.times.max() < prepared.valid.times.min() < prepared.valid.times.max()
    assert prepared.valid.times.max() < prepared.test.times.min()
    assert 0.4 < (prepared.test.targets < NUM_FILMS).mean() < 0.6


def test_no_user_takes_an_item_twice(prepared):
    users = np.concatenate([np.repeat(prepared.split(name).users, prepared.split(name).lengths) for name in SPLITS])
    items = np.concatenate([prepared.split(name).items for name in SPLITS])
    assert len(np.unique(users.astype(np.int64) * NUM_ITEMS + items)) == len(items)


def test_users_and_items_without_training_data_exist_but_are_few(prepared):
    counts = np.bincount(prepared.train.items, minlength=NUM_ITEMS)
    assert 0.02 < (counts[prepared.test.targets] == 0).mean() < 0.15
    assert 0.03 < 1 - np.isin(np.arange(2000), prepared.train.users).mean() < 0.15
    top = np.sort(counts)[::-1]
    assert 0.2 < top[:150].sum() / top.sum() < 0.4, "a tenth of the items should hold a moderate share"


def test_candidates_are_the_rest_of_the_domain(prepared):
    for name in ("valid", "test"):
        for target, row in list(zip(prepared.split(name).targets, prepared.candidates[name]))[:50]:
            domain = range(NUM_FILMS) if target < NUM_FILMS else range(NUM_FILMS, NUM_ITEMS)
            assert sorted(row[row >= 0]) == [item for item in domain if item != target]


def test_texts_and_covers_are_complete(prepared):
    items = prepared.items
    assert items.title.is_unique and items.title.str.len().between(4, 60).all()
    assert items.description.str.len().between(120, 420).all()
    assert not items.description.str.contains(r"[{}]|\ba [aeiou]|\ban [^aeiou]|  ").any()
    for path in items.image:
        with Image.open(prepared.folder / path) as image:
            assert image.size == (64, 96) and image.mode == "RGB"
    assert sum(file.stat().st_size for file in (prepared.folder / "images").iterdir()) < 5e6


def test_texts_are_the_published_ones(prepared):
    content = "\n".join([*prepared.items.title, *prepared.items.description])
    assert hashlib.sha256(content.encode()).hexdigest().startswith("c99ef3d264ce594c")
    assert len(sample_texts.texts()["themes"]) == sample_texts.NUM_THEMES


@pytest.mark.slow
def test_same_seed_same_bytes_other_seed_other_sample(prepared, traits, windows):
    again, images = make_sample()
    assert again.fingerprint == prepared.fingerprint
    assert all((prepared.folder / path).read_bytes() == content for path, content in images.items())
    other = sample_process.draw_traits(1)
    assert not np.array_equal(other.theme, traits.theme)
    assert not np.array_equal(sample_process.draw_windows(other, 1).items[:, :6], windows.items[:, :6])


def test_hidden_traits_are_not_on_disk(prepared):
    assert set(prepared.items.columns) == {"external_id", "title", "description", "image"}
    names = {path.name for path in prepared.folder.iterdir()}
    arrays = {f"{split}.{part}.npy" for split in SPLITS for part in ("users", "offsets", "items", "times")}
    tables = {"manifest.json", "items.parquet", "users.parquet", "candidates.valid.npy", "candidates.test.npy"}
    assert names == arrays | tables | {"images", "features"}


def test_each_content_tells_its_trait_and_no_other(prepared, traits):
    """Accuracy of the nearest neighbour within the domain; chance is 1/12 for themes and styles, 1/24 for communities."""

    def accuracy(kind, labels):
        rows = find_features(prepared, kind).rows
        right = []
        for part in (slice(0, NUM_FILMS), slice(NUM_FILMS, NUM_ITEMS)):
            cosine = rows[part] @ rows[part].T
            np.fill_diagonal(cosine, -2)
            right.append(labels[part][cosine.argmax(axis=1)] == labels[part])
        return np.concatenate(right).mean()

    assert accuracy("text", traits.theme) > 0.9 and accuracy("image", traits.style) > 0.9
    for kind, blind in (("text", traits.style), ("image", traits.theme)):
        assert accuracy(kind, blind) < 1 / 12 + 0.03
    for kind in ("text", "image"):
        assert accuracy(kind, traits.community) < 1 / 24 + 0.03
        assert accuracy(kind, traits.release > 0) < 0.65  # 0.58 for three late items in ten


# The judge. S cases, N items; a part is one table of scores (S, N), named (source, side).


def sides(sequences):
    """Per side, (S, N) sparse weights of the history items; per side, the last item where it is of that side, else -1."""
    weights, last = {"own": [], "other": []}, {"own": [], "other": []}
    for index, target in enumerate(sequences.targets):
        history = sequences.row(index)[:-1]
        weight = DECAY ** np.arange(len(history))[::-1]
        own = (history >= NUM_FILMS) == (target >= NUM_FILMS)
        for side, chosen in (("own", own), ("other", ~own)):
            weights[side].append((weight[chosen] / weight.sum(), np.full(chosen.sum(), index), history[chosen]))
            last[side].append(history[-1] if chosen[-1] else -1)
    shape = (len(sequences), NUM_ITEMS)
    tables = {}
    for side, parts in weights.items():
        values, rows, columns = (np.concatenate(part) for part in zip(*parts))
        tables[side] = sparse.csr_matrix((values, (rows, columns)), shape=shape).astype(np.float32)
    return tables, {side: np.array(items) for side, items in last.items()}


def learned_similarity(prepared):
    train = prepared.train
    rows = np.repeat(np.arange(len(train)), train.lengths)
    member = sparse.csr_matrix((np.ones(len(rows), np.float32), (rows, train.items)), shape=(len(train), NUM_ITEMS))
    together = (member.T @ member).toarray()
    count = together.diagonal().copy()
    np.fill_diagonal(together, 0)
    together /= np.sqrt((count[:, None] + 10) * (count + 10))
    inside = np.flatnonzero(np.diff(rows) == 0)
    after = np.zeros((NUM_ITEMS, NUM_ITEMS), np.float32)
    np.add.at(after, (train.items[inside], train.items[inside + 1]), 1)
    after /= count[:, None] + 10
    text = find_features(prepared, "text").rows[:, :24]  # the leading components: themes rather than single words
    text = text / np.linalg.norm(text, axis=1, keepdims=True)
    image = find_features(prepared, "image").rows
    history = {"ids": [(together, 0.003)], "text": [(text @ text.T, 0.05)], "image": [(image @ image.T, 0.05)]}
    return history, [(after, 0.003)], np.log(count + 3)


def scores(sequences, similarity):
    """{(source, side): list of (S, N) tables}; ids hold transitions from the last item and popularity, too."""
    history, transitions, popularity = similarity
    weights, last = sides(sequences)
    parts = {}
    for side in ("own", "other"):
        for source, tables in history.items():
            parts[source, side] = [np.log(floor + np.maximum(weights[side] @ table, 0)) for table, floor in tables]
        for table, floor in transitions:
            after = np.where(last[side][:, None] >= 0, table[last[side]], 0)
            parts["ids", side].append(np.log(floor + after))
    parts["ids", "own"].append(np.broadcast_to(popularity, (len(sequences), NUM_ITEMS)))
    return parts


class Judge:
    """MRR of every combination of parts, fitted on one split and judged on the other, both ways."""

    def __init__(self, scenario, similarity):
        self.cases = []
        for name in ("valid", "test"):
            sequences = scenario.split(name)
            columns = np.concatenate([sequences.targets[:, None], scenario.candidates[name]], axis=1)
            real = columns >= 0
            history = np.zeros((len(sequences), NUM_ITEMS), dtype=bool)
            for index in range(len(sequences)):
                history[index, sequences.row(index)[:-1]] = True
            real &= ~np.take_along_axis(history, np.maximum(columns, 0), axis=1)
            parts = {
                key: [np.take_along_axis(table, np.maximum(columns, 0), axis=1) for table in tables]
                for key, tables in scores(sequences, similarity).items()
            }
            self.cases.append((parts, real))
        rng = np.random.default_rng(0)
        self.some = np.concatenate([[0], 1 + rng.permutation(698)[:120]])

    def reciprocal_ranks(self, keys):
        """(4000,) one value per case of valid and test."""
        return np.concatenate([self._judge(keys, *self.cases), self._judge(keys, *self.cases[::-1])])

    def _judge(self, keys, fitted, judged):
        def stack(case):
            return np.stack([table for key in keys for table in case[0][key]])

        some, real = stack(fitted)[:, :, self.some], fitted[1][:, self.some]
        middle, spread = some[:, real].mean(axis=1)[:, None, None], some[:, real].std(axis=1)[:, None, None] + 1e-9
        some = (some - middle) / spread

        def loss(weight):
            logits = np.where(real, np.tensordot(weight, some, 1), -np.inf)
            logits -= logits.max(axis=1, keepdims=True)
            probability = np.exp(logits)
            probability /= probability.sum(axis=1, keepdims=True)
            gradient = np.einsum("fsc,sc->f", some, probability) - some[:, :, 0].sum(axis=1)
            return -np.log(probability[:, 0]).mean(), gradient / len(real)

        weight = minimize(loss, np.zeros(len(some)), jac=True, method="L-BFGS-B", options={"maxiter": 30}).x
        score = np.where(judged[1], np.tensordot(weight, (stack(judged) - middle) / spread, 1), -np.inf)
        return reciprocal_rank(score, judged[1])


def reciprocal_rank(score, real):
    """Column 0 is the target; ties count half."""
    rest, target = np.where(real, score, -np.inf)[:, 1:], score[:, :1]
    return 1 / (1 + (rest > target).sum(axis=1) + (rest == target).sum(axis=1) / 2)


SOURCES, SIDES = ("ids", "text", "image"), ("own", "other")
EVERYTHING = [(source, side) for source in SOURCES for side in SIDES]
ONLY = {source: [(source, side) for side in SIDES] for source in SOURCES}
ONLY["other"] = [(source, "other") for source in SOURCES]


@pytest.mark.slow
def test_every_source_tells_something_and_none_is_enough(prepared):
    judge = Judge(prepared, learned_similarity(prepared))
    full = judge.reciprocal_ranks(EVERYTHING)
    targets = np.concatenate([prepared.valid.targets, prepared.test.targets])
    chance = np.where(targets < NUM_FILMS, (1 / np.arange(1, 701)).mean(), (1 / np.arange(1, 801)).mean()).mean()
    assert full.mean() < 0.35, "the best informed scorer must stay far from perfect"

    def margin(values):
        return values.mean() / (values.std() / np.sqrt(len(values)))

    for name, keys in ONLY.items():
        alone = judge.reciprocal_ranks(keys)
        without = judge.reciprocal_ranks([key for key in EVERYTHING if key not in keys])
        assert margin(alone - chance) > 8, f"{name} alone does not beat chance clearly: {alone.mean():.4f}"
        assert alone.mean() > 1.5 * chance
        assert margin(full - alone) > 4, f"{name} alone is enough: {alone.mean():.4f} of {full.mean():.4f}"
        assert margin(full - without) > 3, f"nothing is lost without {name}: {without.mean():.4f} of {full.mean():.4f}"


def test_prepare_loads_what_is_there(prepared, monkeypatch):
    def never():
        raise AssertionError("the sample was generated although it is there")

    monkeypatch.setattr(sample, "make_sample", never)
    loaded = prepare_sample(prepared.folder.parent)
    assert loaded.fingerprint == prepared.fingerprint
    assert find_features(loaded, "text").encoder == find_features(loaded, "image").encoder == "offline"


def test_of_two_commands_at_once_one_makes_the_sample(prepared, tmp_path, monkeypatch):
    made = []

    def write(data_root):
        made.append(data_root)
        time.sleep(0.05)
        shutil.copytree(prepared.folder, data_root / "sample")
        return Scenario.load(data_root / "sample")

    monkeypatch.setattr(sample, "_write", write)
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(prepare_sample, [tmp_path / "data"] * 2))
    assert len(made) == 1 and {scenario.fingerprint for scenario in found} == {prepared.fingerprint}


@pytest.fixture
def copied(prepared, tmp_path, monkeypatch):
    """A copy of the sample, and a generator that answers from the first one."""
    shutil.copytree(prepared.folder, tmp_path / "sample")
    images = {path: (prepared.folder / path).read_bytes() for path in prepared.items.image[:30]}
    monkeypatch.setattr(sample, "make_sample", lambda: (prepared, images))
    return tmp_path


def test_prepare_remakes_a_stale_sample_and_says_so(prepared, copied, caplog):
    manifest = json.loads((copied / "sample" / "manifest.json").read_text())
    manifest["source"]["generator"]["version"] = 0
    (copied / "sample" / "manifest.json").write_text(json.dumps(manifest))
    with caplog.at_level(logging.WARNING):
        again = prepare_sample(copied)
    assert again.source == prepared.source
    assert "another version of the generator" in caplog.text


def test_prepare_remakes_a_damaged_sample_and_says_so(prepared, copied, caplog):
    items = np.load(copied / "sample" / "train.items.npy")
    items[0] += 1
    np.save(copied / "sample" / "train.items.npy", items)
    with caplog.at_level(logging.WARNING):
        again = prepare_sample(copied)
    assert again.fingerprint == prepared.fingerprint
    assert "was changed after it was written" in caplog.text


def test_prepare_writes_missing_features_again(prepared, copied):
    shutil.rmtree(copied / "sample" / "features" / "text.offline")
    again = prepare_sample(copied)
    assert find_features(again, "text").hash() == find_features(prepared, "text").hash()


@pytest.mark.parametrize("content", ["{}", '{"source": {"reader": "windows"}}', "no json", None])
def test_prepare_leaves_a_foreign_scenario_alone(tmp_path, content):
    (tmp_path / "sample").mkdir()
    if content is not None:
        (tmp_path / "sample" / "manifest.json").write_text(content)
    with pytest.raises(InputError, match="is not the generated sample"):
        prepare_sample(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["sample"]


def test_prepare_in_a_place_that_cannot_be_written(copied, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="sample cannot be written"):
        prepare_sample(tmp_path / "file")
