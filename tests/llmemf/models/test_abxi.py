"""ABXI against a NumPy twin that reads one sequence, and one target, at a time."""

import numpy as np
import pytest
import torch
from reference import linear, softmax
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario, make_sequences, whole

from llmemf.batches import VIEWS
from llmemf.config import build_config
from llmemf.models.abxi import ABXI, ABXIConfig, SwiGLU

WIDTH = 6
OPTIONS = [{}, {"max_length": 3}, {"temperature": 2.0, "negatives": 7}, {"heads": 3, "adapter_rank": 1}]


@pytest.fixture(scope="module")
def data():
    return make_data()


def make_model(data, **options):
    """A model without dropout whose parameters are all far from their initial values."""
    given = {"model": "abxi", "dim": WIDTH, "max_length": 12, "dropout": 0.0, "negatives": 5, **options}
    torch.manual_seed(0)
    model = ABXI(build_config(ABXIConfig, given), data)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return model.eval()


def in_domain(item, domain):
    return (item >= NUM_X) == bool(domain)


class Twin:
    def __init__(self, model):
        self.config = model.config
        self.p = {name: tensor.detach().double().numpy() for name, tensor in model.state_dict().items()}

    def swiglu(self, x, name):
        both = x @ self.p[f"{name}.gate_and_value.weight"].T
        gate, value = np.split(both, 2, axis=-1)
        return (gate / (1 + np.exp(-gate)) * value) @ self.p[f"{name}.out.weight"].T

    def low_rank(self, x, name):
        return x @ self.p[f"{name}.down"].T @ self.p[f"{name}.up"].T

    def norm(self, x, name):
        mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
        return (x - mean) / np.sqrt(variance + 1e-5) * self.p[f"{name}.weight"] + self.p[f"{name}.bias"]

    def states(self, view, items):
        """(L, D) states of a list of items, oldest first; its newest item has position 0."""
        h = self.p["items"][items] + self.p["positions"][: len(items)][::-1]
        parts = np.split(linear(h, self.p, "attention.inputs"), 3, axis=1)
        size = WIDTH // self.config.heads
        heads = []
        for head in range(self.config.heads):
            q, k, v = (part[:, head * size : (head + 1) * size] for part in parts)
            heads.append(
                np.stack([softmax(q[t] @ k[: t + 1].T / np.sqrt(size)) @ v[: t + 1] for t in range(len(items))])
            )
        a = self.norm(h + linear(np.concatenate(heads, 1), self.p, "attention.out"), "norm")
        return self.norm(a + self.swiglu(a, "network") + self.low_rank(a, f"adapters.{view}"), f"view_norms.{view}")

    def target_state(self, merged, own, domain):
        z = merged + self.swiglu(merged, "merged_output") + self.low_rank(merged, f"output_adapters.{domain}")
        z = self.norm(z, f"merged_norms.{domain}")
        if own is None:
            return z
        return z + self.norm(own + self.swiglu(own, f"own_outputs.{domain}"), f"own_norms.{domain}")

    def score(self, history, domain):
        history = history[-self.config.max_length :]
        own = [item for item in history if in_domain(item, domain)]
        state = self.target_state(
            self.states("xy", history)[-1], self.states("xy"[domain], own)[-1] if own else None, domain
        )
        items = np.arange(NUM_X, NUM_ITEMS) if domain else np.arange(NUM_X)
        return self.p["items"][items] @ state / self.config.temperature

    def loss(self, sequences, negatives):
        """`negatives(domain, sequence)` lists what a target competes with; their mean stands for each of `negatives`."""
        total = 0.0
        for sequence in sequences:
            for domain in (0, 1):
                own = [item for item in sequence if in_domain(item, domain)]
                merged_states, terms = self.states("xy", sequence[:-1]), []
                # The last item of the domain is a target only, or, where it is no target, nothing.
                own_states = self.states("xy"[domain], own[:-1]) if len(own) > 1 else []
                for state, target in zip(own_states, own[1:]):
                    before = sequence.index(target) - 1
                    z = self.target_state(merged_states[before], state, domain) / self.config.temperature
                    rivals = np.exp(self.p["items"][negatives(domain, sequence)] @ z).mean() * self.config.negatives
                    own_score = np.exp(self.p["items"][target] @ z)
                    terms.append(np.log((own_score + rivals) / own_score))
                total += np.mean(terms) if terms else 0.0
        return total / len(sequences)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_scores_equal_the_twin(data, options):
    model = make_model(data, **options)
    twin, batch = Twin(model), whole(make_sequences(data, "valid", config=model.config))
    for domain in (0, 1):
        scores = model.score_all(batch, domain).detach().numpy()
        for case in range(len(batch)):
            history = data.valid.row(case)[:-1].tolist()
            np.testing.assert_allclose(scores[case], twin.score(history, domain), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("options", [OPTIONS[0], OPTIONS[2]], ids=str)
def test_the_loss_with_every_item_as_a_negative_equals_the_twin(data, options):
    model = make_model(data, **options)
    batch = whole(make_sequences(data, "train", config=model.config))
    rows = [data.train.row(index).tolist() for index in range(len(data.train))]

    def negatives(domain, sequence):
        return [item for item in range(NUM_ITEMS) if in_domain(item, domain) and item not in sequence]

    assert model.training_loss(batch).item() == pytest.approx(Twin(model).loss(rows, negatives), rel=1e-4)


def test_a_sequence_of_one_domain_trains_on_that_domain_alone():
    data = make_data(make_scenario(rows={"train": [[1, 2, 3], [4, 5, 6]]}))
    model = make_model(data).train()
    model.training_loss(whole(make_sequences(data, "train", config=model.config))).backward()
    trained = {
        view: bool(model.adapters[view].up.grad is not None and model.adapters[view].up.grad.any()) for view in VIEWS
    }
    assert trained == {"x": True, "y": False, "xy": True}


def test_the_inner_width_is_the_published_one():
    assert SwiGLU(256).out.weight.shape == (256, 680)
