"""The attention encoder: causality, padding, shapes, dropout. (Its values: `reference.py`, in test_llm_emf.py.)"""

import functools

import pytest
import torch
from tiny import NUM_ITEMS, make_data, make_model, make_sequences, whole

from llmemf.batches import Batch, SequenceView
from llmemf.models import attention
from llmemf.models.attention import AttentionBlock, Layout, SequenceEncoder, dropout

B, L, D = 3, 5, 8
KINDS = [{"bare": False}, {"bare": True}, {"bare": False, "positions": False}, {"bare": False, "heads": 4}]


def make_encoder(**options):
    torch.manual_seed(0)
    encoder = SequenceEncoder(D, 9, **{"layers": 2, "dropout": 0.0, **options})
    with torch.no_grad():
        for parameter in encoder.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.3)
    return encoder.eval()


def make_input():
    torch.manual_seed(1)
    real = torch.tensor([[False, False, True, True, True], [True] * 5, [False, True, False, True, False]])
    return torch.randn(B, L, D) * real[..., None], real


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_later_item_changes_no_earlier_state(options):
    encoder = make_encoder(**options)
    x, real = make_input()
    before = encoder(x, real)
    for column in range(L):
        changed = x.clone()
        changed[:, column] += torch.randn(B, D) * real[:, column, None]
        after = encoder(changed, real)
        torch.testing.assert_close(after[:, :column], before[:, :column], rtol=0, atol=0)
        moved = (after[:, column:] != before[:, column:]).any(-1)
        assert bool((moved | ~real[:, column:] | ~real[:, column, None]).all()), "every later state sees the item"


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_real_rows_alone_give_what_all_positions_give(options, monkeypatch):
    encoder = make_encoder(**options)
    (x, real), found = make_input(), []
    for packed in (True, False):
        monkeypatch.setattr(attention, "Layout", functools.partial(Layout, packed=packed))
        states = encoder(x, real)
        found.append([states, *torch.autograd.grad(states.sin().sum(), list(encoder.parameters()))])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_padding_on_the_left_or_between_changes_no_state(options):
    encoder = make_encoder(**options)
    x, real = make_input()
    states = encoder(x, real)
    assert states.shape == (B, L, D)
    assert not states[~real].any()
    for row in range(B):
        alone = encoder(x[row, real[row]][None], torch.ones(1, int(real[row].sum()), dtype=torch.bool))
        torch.testing.assert_close(alone[0], states[row, real[row]], rtol=1e-5, atol=1e-5)


def test_a_row_of_padding_alone_is_zero_and_has_finite_gradients():
    encoder = make_encoder()
    x = torch.zeros(2, L, D, requires_grad=True)
    real = torch.tensor([[False] * L, [True] * L])
    states = encoder(x, real)
    assert not states[0].any() and bool(states.isfinite().all())
    states.square().sum().backward()
    assert all(bool(p.grad.isfinite().all()) for p in [x, *encoder.parameters()])


def test_positions_matter_only_where_they_are_switched_on():
    x, real = torch.randn(1, 1, D).expand(1, L, D), torch.ones(1, L, dtype=torch.bool)
    for positions in (True, False):
        states = make_encoder(positions=positions)(x, real)
        assert torch.allclose(states[:, 0], states[:, 4], atol=1e-5) is not positions


def test_bare_block_has_three_maps_alone():
    assert {name.split(".")[0] for name in AttentionBlock(D, 1, 0.0, bare=True).state_dict()} == {
        "query",
        "key",
        "value",
    }


@pytest.mark.parametrize("rate", [0.1, 0.3, 0.9])
def test_dropout_keeps_the_share_and_the_mean(rate):
    torch.manual_seed(0)
    x = torch.ones(101, 997, requires_grad=True)
    dropped = dropout(x, rate, True)
    zero = (dropped == 0).double().mean().item()
    assert abs(zero - rate) < 4 * (rate * (1 - rate) / x.numel()) ** 0.5 + 1 / 65536
    torch.testing.assert_close(dropped[dropped != 0], torch.full_like(dropped[dropped != 0], 1 / (1 - rate)))
    dropped.sum().backward()
    torch.testing.assert_close(x.grad, dropped.detach())
    rows, columns = (dropped == 0).double().mean(1), (dropped == 0).double().mean(0)
    assert rows.std() < 0.05 and columns.std() < 0.08
    assert torch.equal(dropout(x, rate, False), x) and torch.equal(dropout(x, 0.0, True), x)


@pytest.mark.parametrize("count", [1, 3, 4, 5])
def test_dropout_of_any_number_of_elements(count):
    torch.manual_seed(0)
    draws = torch.stack([dropout(torch.ones(count), 0.5, True) for _ in range(400)])
    assert bool((draws.mean(0) - 1).abs().max() < 0.25) and set(draws.unique().tolist()) == {0, 2}


def widened(view, columns):
    def wide(table):
        return torch.cat([torch.full((len(table), columns), NUM_ITEMS), table], 1)

    return SequenceView(*(wide(table) for table in (view.items, view.next_same, view.next_merged)))


@pytest.mark.parametrize("options", [{}, {"encoder": "bare"}, {"layout": "aligned"}, {"heads": 2}], ids=str)
def test_more_columns_of_padding_change_no_score_and_no_loss(options):
    data = make_data()
    model = make_model(data, **options)
    for split in ("valid", "train"):
        batch = whole(make_sequences(data, split, config=model.config))
        wide = Batch(batch.users, {name: widened(view, 4) for name, view in batch.views.items()}, batch.targets)
        with torch.inference_mode():
            if split == "train":
                torch.testing.assert_close(model.training_loss(wide), model.training_loss(batch))
                continue
            for domain in (0, 1):
                torch.testing.assert_close(model.score_all(wide, domain), model.score_all(batch, domain))


@pytest.mark.parametrize("layout", ["compact", "aligned"])
@pytest.mark.parametrize("encoder", ["block", "bare"])
def test_a_later_item_changes_no_earlier_state_of_the_model(layout, encoder):
    data = make_data()
    model = make_model(data, layout=layout, encoder=encoder)
    tower = model.towers[0]
    for name, view in whole(make_sequences(data, "train", config=model.config)).views.items():
        length = view.items.shape[1]

        def states(items, name=name):
            inputs = [tower.tables[m].input_rows(items) for m in tower.modalities]
            return tower.states(items < NUM_ITEMS, name, inputs)

        before = states(view.items)
        for column in (length - 1, length - 2):
            items = view.items.clone()
            real = items[:, column] < NUM_ITEMS
            items[real, column] = (items[real, column] + 1) % NUM_ITEMS
            after = states(items)
            for a, b in zip(after, before):
                torch.testing.assert_close(a[:, :column], b[:, :column], rtol=0, atol=0)
                assert not torch.equal(a[:, column], b[:, column])
