import numpy as np
import pytest
import torch
import two_domain_reference as reference
from tiny import NUM_ITEMS, NUM_X, make_data, make_scenario

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.mifn import MIFN, KnowledgeTransfer, MIFNConfig
from llmemf.models.sub_graph import sub_graph


@pytest.fixture(scope="module")
def data():
    """Many short sequences over all items, so that pairs recur and every relation but the dated one has neighbours."""
    rng = np.random.default_rng(2)
    rows = [
        rng.choice([1, 2, 3, 5, 6, 7, 8, 9, 33, 35, 40, 41, 50, 60, 61, 62], 6, replace=False).tolist()
        for _ in range(60)
    ]
    return make_data(make_scenario(rows={"train": rows}), missing=False)


def attention(p, name, query, keys, mask):
    """Softmax over the nodes of the mask, zero elsewhere."""
    scores = np.array([
        p[f"{name}.vector.weight"][0] @ np.tanh(reference.linear(p, f"{name}.query", query) + p[f"{name}.key.weight"] @ key) for key in keys
    ])  # fmt: skip
    weights = np.zeros(len(keys))
    if any(mask):
        weights[mask] = reference.softmax(scores[mask])
    return weights


def gru_cell(p, x, h):
    width = len(h)
    a, b = p["weight_ih"] @ x + p["bias_ih"], p["weight_hh"] @ h + p["bias_hh"]
    r, z = reference.sigmoid(a[:width] + b[:width]), reference.sigmoid(a[width : 2 * width] + b[width : 2 * width])
    return (1 - z) * np.tanh(a[2 * width :] + r * b[2 * width :]) + z * h


def knowledge(p, entities, adjacency, is_in, is_cross, h, t):
    """One round of messages, node by node."""
    n, width = entities.shape
    a_in, a_cross = attention(p, "attend_in", h, entities, is_in), attention(p, "attend_cross", t, entities, is_cross)
    y_in, y_cross = np.zeros((n, width)), np.zeros((n, width))
    for i in range(n):
        g = reference.sigmoid(reference.linear(p, "gate", np.concatenate([h, t, entities[i]])))
        if is_in[i]:
            y_in[i] = reference.linear(p, "map_in", g * a_in[i] * entities[i])
        if is_cross[i]:
            y_cross[i] = reference.linear(p, "map_cross", (1 - g) * a_cross[i] * entities[i])
    mutual = np.zeros((n, width))
    for i in range(n):
        for m in range(n):
            mutual[i] += (p["mutual"] @ (y_cross[i] * y_in[m])) * y_in[m]
    y_cross = y_cross + mutual
    result = np.zeros((n, width))
    for i in range(n):
        heard = []
        for name, y in (("message_in", y_in), ("message_cross", y_cross)):
            for r in range(len(adjacency)):
                rows = slice(r * width, (r + 1) * width)
                w, b = p[f"{name}.weight"][rows], p[f"{name}.bias"][rows]
                heard.append(sum((adjacency[r, i, j] * (w @ y[j] + b) for j in range(n)), np.zeros(width)))
        result[i] = gru_cell(reference.part(p, "update."), np.maximum(np.concatenate(heard), 0), entities[i])
    return result


def by_hand(model, row, domain):
    """Probabilities of the domain's items; the sequence's, the graph's, and the share of the graph."""
    config, p = model.config, reference.arrays(model)
    states, others = reference.walk(model, row)
    carried = [reference.transfer(model, states, others, line) for line in (0, 1)]
    h, z = reference.last(states[domain], config.dim), reference.last(carried[1 - domain], config.dim)
    scores = reference.logits(model, z, h, domain)
    nodes, adjacency = sub_graph(
        torch.tensor([row]), torch.tensor([len(row)]), model.neighbours,
        size=config.nodes, hops=config.hops, num_x=NUM_X,
    )  # fmt: skip
    real = (nodes[0] < NUM_ITEMS).numpy()
    nodes, adjacency = nodes[0].numpy()[real], adjacency[0].numpy()[:, real][:, :, real]
    of_y = nodes >= NUM_X
    own = int(row[-1] >= NUM_X)
    entities = knowledge(
        reference.part(p, "knowledge."), p["items"][nodes], adjacency, of_y == bool(own), of_y != bool(own), states[own][-1], carried[own][-1]
    )  # fmt: skip
    member = of_y == bool(domain)
    weights = attention(p, f"pointers.{domain}", h, entities, member)
    summed = entities[member].sum(0)
    switch = reference.linear(p, f"switches.{domain}", np.concatenate([h, z, summed]))[0]
    share = reference.sigmoid(switch) if member.any() else 0.0
    from_graph = np.zeros(len(scores))
    from_graph[nodes[member] - (NUM_X if domain else 0)] = weights[member]
    return reference.softmax(scores), from_graph, share, set(nodes.tolist())


@pytest.mark.parametrize("values", [{}, {"hops": 1}, {"nodes": 40}])
def test_scores_equal_the_equations(data, values):
    model = reference.make_model("mifn", data, **{"nodes": 12, **values})
    with torch.no_grad():
        for domain in (0, 1):
            for row, score in zip(reference.ROWS, model.score_all(reference.histories(reference.ROWS), domain).numpy()):
                sequence, graph, share, _ = by_hand(model, row, domain)
                expected = (1 - share) * sequence + share * graph
                np.testing.assert_allclose(np.exp(score), expected, rtol=1e-7, atol=1e-10)
                assert expected.sum() == pytest.approx(1)


@pytest.mark.parametrize("values", [{}, {"v2_causal": False}, {"objective": "sampled"}])
def test_training_loss_by_hand(data, values):
    model = reference.make_model("mifn", data, nodes=12, prefixes="whole", **values)
    rows = [row for row in reference.ROWS if len(row) > 1]
    if values.get("objective") == "sampled":
        # With every item among the inputs, all are counted exactly and nothing is estimated.
        rows = rows + [[item, 1 if item < NUM_X else 41] for item in range(NUM_ITEMS)]

    def value(seen, domain, target):
        sequence, graph, share, nodes = by_hand(model, seen, domain)
        place = target - (NUM_X if domain else 0)
        loss = -np.log((1 - share) * sequence[place] + share * graph[place])
        counts[target in nodes] += 1
        return loss - (0 if target in nodes else np.log(1 - share + 1e-4))

    counts = {True: 0, False: 0}
    with torch.no_grad():
        expected = reference.mean_loss(rows, model.config, value)
        assert float(model.training_loss(reference.training(rows))) == pytest.approx(expected, rel=1e-6)
    assert min(counts.values()) > 0


def test_mutual_attention_equals_its_expanded_form():
    torch.manual_seed(0)
    layer = KnowledgeTransfer(5, 2)
    y_cross, y_in = torch.randn(2, 2, 7, 5)
    expanded = torch.einsum("d,bnd,bmd->bnm", layer.mutual, y_cross, y_in)[..., None] * y_in[:, None]
    torch.testing.assert_close(layer.mutual_attention(y_cross, y_in), expanded.sum(2), rtol=1e-4, atol=1e-5)


def test_the_graph_knows_training_sequences_alone(data):
    """Another validation split: the same graph. Another reference.training split: another."""
    rows = [data.train.row(number).tolist() for number in range(len(data.train))]
    other_valid = make_data(make_scenario(rows={"train": rows, "valid": rows[:10]}), missing=False)
    other_train = make_data(make_scenario(rows={"train": rows[:-20]}), missing=False)
    facts = [reference.make_model("mifn", each, nodes=12).facts() for each in (data, other_valid, other_train)]
    assert facts[0] == facts[1] and facts[0]["kg_hash"] != facts[2]["kg_hash"]
    assert facts[0]["kg"] == "cooc, top 10, min count 2"


def test_weights_of_earlier_versions_are_read(data):
    """They held what the graph was made of beside the weights."""
    old = {**reference.make_model("mifn", data, nodes=12).trainable_state(), "_extra_state": torch.zeros(3)}
    reference.make_model("mifn", data, nodes=12, seed=4).load_state_dict(old)


def test_text_is_needed_by_one_recipe_alone(data):
    assert not MIFN.needs(MIFNConfig(model="mifn"))
    config = build_config(MIFNConfig, {"model": "mifn", "kg": "cooc_text"})
    assert MIFN.needs(config) == {"text"}
    recipe = reference.make_model("mifn", data, nodes=12, kg="cooc_text").facts()["kg"]
    assert recipe.startswith(f"cooc_text (random, {data.text.hash()[:12]})")
    bare = make_data(make_scenario(), missing=False)
    object.__setattr__(bare, "text", None)
    with pytest.raises(InputError, match="kg = cooc"):
        MIFN(config, bare)
