"""Ranks and metrics against hand computation, and the floors of a scorer that knows nothing."""

import math

import numpy as np
import pytest
import torch
from tiny import NUM_ITEMS, NUM_X, NUM_Y, make_data, make_model, make_scenario, make_sequences

from llmemf.batches import DeviceSequences
from llmemf.models.recommender import Recommender
from llmemf.ranking import METRICS, SHOWN_ITEMS, rank_cases, rank_metrics, side_metrics, summarise, target_ranks
from llmemf.scenarios.sequences import Sequences


class FixedScores(Recommender):
    """Scores every case by the same (N,) vector, or by a function of the batch."""

    def __init__(self, scores, num_x, num_items):
        torch.nn.Module.__init__(self)
        self.scores, self.num_x, self.num_items = scores, num_x, num_items

    def training_loss(self, batch):
        raise AssertionError("nothing is trained here")

    def score_all(self, batch, domain):
        scores = self.scores(batch) if callable(self.scores) else self.scores.expand(len(batch), -1)
        return scores[:, self.num_x :] if domain else scores[:, : self.num_x]


def ranks_of(scores, *, ties="mean", split="valid", scenario=None, **options):
    scenario = scenario or make_scenario()
    model = FixedScores(scores, scenario.num_x, scenario.num_items)
    sequences = make_sequences(scenario, split)
    return rank_cases(model, sequences, scenario.candidates[split], batch_size=5, ties=ties, **options)


def test_ranks_of_small_rows_by_hand():
    target = torch.tensor([3.0, 1.0, 2.0, 2.0])
    others = torch.tensor([[1.0, 2.0, 0.0], [1.0, 2.0, 0.0], [2.0, 2.0, 5.0], [9.0, 2.0, 1.0]])
    assert target_ranks(target, others, ties="mean").tolist() == [1, 2.5, 3, 2.5]
    assert target_ranks(target, others, ties="optimistic").tolist() == [1, 2, 2, 2]
    assert target_ranks(target, others, ties="pessimistic").tolist() == [1, 3, 4, 3]
    counted = torch.tensor([[True] * 3, [True, False, True], [False, True, True], [False, False, False]])
    assert target_ranks(target, others, counted).tolist() == [1, 1.5, 2.5, 1]


def test_metrics_of_given_ranks_by_hand():
    metrics = rank_metrics(np.array([1, 2, 5, 6, 10, 11, 1.5]))
    expected = {
        "mrr": (1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 10 + 1 / 11 + 2 / 3) / 7,
        "hr_1": 1 / 7,
        "hr_5": 4 / 7,
        "hr_10": 6 / 7,
        "ndcg_5": (1 + 1 / math.log2(3) + 1 / math.log2(6) + 1 / math.log2(2.5)) / 7,
        "ndcg_10": (1 + sum(1 / math.log2(rank + 1) for rank in (2, 5, 6, 10, 1.5))) / 7,
    }
    assert set(metrics) == set(METRICS) == set(expected)
    for name, value in expected.items():
        assert metrics[name] == pytest.approx(value, rel=1e-12), name


def test_every_ranking_by_a_loop_over_cases():
    # The last two histories hold an item twice, the target, and more items than the model reads.
    repeated = [[3, 40, 3, 40, 5, 3], [*range(NUM_X, NUM_ITEMS), 50]]
    rows = [row.tolist() for row in map(make_scenario().valid.row, range(20))] + repeated
    scenario = make_scenario(rows={"valid": rows})
    scores = torch.from_numpy(np.random.default_rng(2).integers(0, 6, NUM_ITEMS).astype(np.float32))
    ranks = ranks_of(scores, scenario=scenario)
    targets = scenario.valid.targets
    assert sorted(ranks["case"].tolist()) == list(range(len(targets)))
    for position, case in enumerate(ranks["case"]):
        target = targets[case]
        domain = int(target >= NUM_X)
        assert ranks["domain"][position] == domain
        items = range(NUM_X, NUM_ITEMS) if domain else range(NUM_X)
        own = [float(scores[item]) for item in items]
        others = {
            "full": [i for i in items if i != target],
            "unseen": sorted(set(items) - {target} - set(scenario.valid.row(case)[:-1].tolist())),
            "sampled": [c for c in scenario.candidates["valid"][case] if c >= 0],
        }
        for name, against in others.items():
            greater = sum(bool(scores[item] > scores[target]) for item in against)
            equal = sum(bool(scores[item] == scores[target]) for item in against)
            assert ranks[name][position] == 1 + greater + equal / 2, name
        nll = math.log(sum(math.exp(value) for value in own)) - float(scores[target])
        assert ranks["nll"][position] == pytest.approx(nll, rel=1e-5)


@pytest.fixture(scope="module")
def large():
    """1,000 and 1,100 items, 4,000 cases of two items each, 999 candidates."""
    rng = np.random.default_rng(0)
    num_x, num_items, cases = 1000, 2100, 4000
    targets = rng.integers(0, num_items, cases)
    history = np.where(targets < num_x, num_x, 0)
    sequences = Sequences.from_rows(np.zeros(cases, int), np.stack([history, targets], 1).tolist())
    device = DeviceSequences(sequences, num_x=num_x, num_items=num_items, max_length=2, held_out=True)
    candidates = np.zeros((cases, 999), np.int32)
    for case, target in enumerate(targets):
        low, high = (0, num_x) if target < num_x else (num_x, num_items)
        drawn = rng.integers(low, high - 1, 999)
        candidates[case] = np.where(drawn >= target, drawn + 1, drawn)
    return device, candidates, num_x, num_items


def summary(large, scores, ties="mean"):
    device, candidates, num_x, num_items = large
    model = FixedScores(scores, num_x, num_items)
    return rank_cases(model, device, candidates, batch_size=500, ties=ties)


def test_random_scorer_is_at_the_floor(large):
    torch.manual_seed(0)
    ranks = summary(large, lambda batch: torch.rand(len(batch), 2100))
    reciprocal = 1 / ranks["sampled"]
    floor = sum(1 / rank for rank in range(1, 1001)) / 1000
    assert floor == pytest.approx(0.007485, abs=1e-6)
    error = reciprocal.std() / math.sqrt(len(reciprocal))
    assert abs(reciprocal.mean() - floor) < 3 * error
    metrics = rank_metrics(ranks["sampled"])
    for name, expected in (("hr_10", 0.01), ("ndcg_5", 0.002948), ("ndcg_10", 0.004544)):
        assert metrics[name] == pytest.approx(expected, abs=3 * math.sqrt(expected / 4000)), name


def test_constant_scorer_has_the_mean_rank_and_is_never_perfect(large):
    metrics = rank_metrics(summary(large, torch.zeros(2100))["sampled"])
    assert metrics["mrr"] == pytest.approx(1 / (1 + 999 / 2), rel=1e-12)
    assert metrics["hr_10"] == 0
    assert rank_metrics(summary(large, torch.zeros(2100), "optimistic")["sampled"])["mrr"] == 1
    worst = rank_metrics(summary(large, torch.zeros(2100), "pessimistic")["sampled"])
    assert worst["mrr"] == pytest.approx(1 / 1000, rel=1e-12)


def test_sampled_ranks_are_full_ranks_when_all_items_are_candidates():
    scenario = make_scenario()
    width = max(NUM_X, NUM_Y) - 1
    table = np.full((len(scenario.valid), width), -1, np.int32)
    for case, target in enumerate(scenario.valid.targets):
        items = np.arange(NUM_X) if target < NUM_X else np.arange(NUM_X, NUM_ITEMS)
        others = items[items != target]
        table[case, : len(others)] = np.random.default_rng(case).permutation(others)
    data = make_data(scenario)
    ranks = rank_cases(make_model(data), make_sequences(data, "valid"), table, batch_size=6)
    np.testing.assert_array_equal(ranks["sampled"], ranks["full"])
    assert len(set(ranks["full"])) > 5


def test_batch_size_and_chosen_cases_do_not_change_a_rank():
    data = make_data()
    model, sequences = make_model(data), make_sequences(data, "valid")
    reference = rank_cases(model, sequences, data.valid_candidates, batch_size=100)
    for batch_size, cases in ((1, None), (7, None), (4, np.array([20, 3, 11, 4]))):
        ranks = rank_cases(model, sequences, data.valid_candidates, batch_size=batch_size, cases=cases)
        place = {case: position for position, case in enumerate(reference["case"])}
        kept = [place[case] for case in ranks["case"]]
        assert len(kept) == (23 if cases is None else 4)
        for name in ("sampled", "full", "domain"):
            np.testing.assert_array_equal(ranks[name], reference[name][kept])
        np.testing.assert_allclose(ranks["nll"], reference["nll"][kept], atol=1e-5)


def test_no_case_at_all_and_a_domain_without_a_case():
    scenario = make_scenario()
    only_x = np.flatnonzero(scenario.valid.targets < NUM_X)
    result = summarise(ranks_of(torch.zeros(NUM_ITEMS), cases=only_x), scenario.domains, "val")
    assert "val/film/mrr" in result and "val/book/mrr" not in result
    assert result["val/mrr"] == result["val/film/mrr"]
    empty = ranks_of(torch.zeros(NUM_ITEMS), cases=np.zeros(0, int))
    assert {name: len(values) for name, values in empty.items()} == dict.fromkeys(
        ("case", "domain", "sampled", "full", "unseen", "nll"), 0
    )


KINDS = {"val": "sampled", "val_full": "full", "val_unseen": "unseen"}


def test_summary_holds_every_metric_of_both_domains_and_their_means():
    scenario = make_scenario()
    ranks = ranks_of(torch.arange(float(NUM_ITEMS)), scenario=scenario)
    result = summarise(ranks, scenario.domains, "val")
    names = {f"{kind}/{domain}/{m}" for kind in KINDS for domain in scenario.domains for m in METRICS}
    assert set(result) == names | {f"{kind}/mrr" for kind in KINDS} | {"val/loss"}
    for kind, name in KINDS.items():
        by_domain = [np.mean(1 / ranks[name][ranks["domain"] == domain]) for domain in (0, 1)]
        assert result[f"{kind}/mrr"] == pytest.approx(np.mean(by_domain), rel=1e-12)
        assert result[f"{kind}/book/mrr"] == pytest.approx(by_domain[1], rel=1e-12)
    assert result["val/loss"] == pytest.approx(ranks["nll"].mean(), rel=1e-12)


def test_not_a_number_among_the_scores_is_an_error():
    scores = torch.zeros(NUM_ITEMS)
    scores[NUM_X + 7] = torch.nan
    with pytest.raises(FloatingPointError, match="NaN"):
        ranks_of(scores)


def test_a_case_or_target_without_probability_spoils_neither_rank_nor_loss():
    """-inf for all items means no preference; -inf for the target alone is last, and left out of the loss."""
    scores = torch.full((NUM_ITEMS,), -torch.inf)
    ranks = ranks_of(scores)
    assert set(ranks["full"]) == {1 + (NUM_X - 1) / 2, 1 + (NUM_Y - 1) / 2}
    result = summarise(ranks, ("film", "book"), "val")
    assert math.isfinite(result["val/loss"])
    assert result["val/loss"] == pytest.approx(
        np.where(ranks["domain"] == 0, math.log(NUM_X), math.log(NUM_Y)).mean(), rel=1e-6
    )
    scenario = make_scenario()
    scores = torch.zeros(NUM_ITEMS)
    scores[int(scenario.valid.targets[0])] = -torch.inf
    ranks = ranks_of(scores, scenario=scenario)
    assert math.isfinite(summarise(ranks, scenario.domains, "val")["val/loss"])


def test_model_comes_back_in_the_mode_it_came_in():
    data = make_data()
    model = make_model(data, dropout=0.5)
    for mode in (True, False):
        model.train(mode)
        rank_cases(model, make_sequences(data, "valid"), data.valid_candidates, batch_size=50)
        assert model.training is mode


def test_first_items_are_those_that_the_history_lacks():
    scenario = make_scenario()
    scores = torch.rand(scenario.num_items, generator=torch.Generator().manual_seed(3))
    ranks = ranks_of(scores, scenario=scenario, lists=True)
    for place, case in enumerate(ranks["case"]):
        row = scenario.valid.row(case).tolist()
        domain = range(NUM_X) if row[-1] < NUM_X else range(NUM_X, NUM_ITEMS)
        order = sorted((i for i in domain if i not in row[:-1]), key=lambda i: -scores[i])[:SHOWN_ITEMS]
        expected = order + [-1] * (SHOWN_ITEMS - len(order))
        assert ranks["top"][place].tolist() == expected and ranks["target"][place] == row[-1]


def test_metrics_beside_accuracy_by_hand():
    ranks = {
        "domain": np.array([0, 0, 0, 1]),
        "target": np.array([4, 4, 2, 9]),
        "sampled": np.array([1.0, 2.0, 4.0, 5.0]),
        "top": np.array([[1, 2, -1], [2, 3, 1], [1, 4, 2], [9, -1, -1]]),
    }
    assert side_metrics(ranks, ("film", "book"), (8, 2), "test") == {
        "test/film/mrr_per_item": pytest.approx((0.75 + 0.25) / 2),
        "test/film/coverage_10": 4 / 8,
        "test/book/mrr_per_item": pytest.approx(0.2),
        "test/book/coverage_10": 1 / 2,
    }
