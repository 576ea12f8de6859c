"""Item vectors: unit rows, padding, missing features, projections."""

import numpy as np
import pytest
import torch
from tiny import NO_IMAGE, NUM_ITEMS, NUM_X, WIDTHS, make_data

from llmemf.models.item_table import FrozenTable, IdTable

IDS = torch.tensor([[0, 5, NUM_ITEMS], [NUM_X, NUM_X + 5, NUM_ITEMS - 1]])
"""Items 0 and NUM_X + 5 have no image."""


def frozen(**options):
    torch.manual_seed(0)
    return FrozenTable(
        make_data().image, NUM_X, **{"projection": "none", "width": 5, "missing": "renormalise", **options}
    )


def test_ids_read_their_rows_and_padding_reads_zero():
    table = IdTable(NUM_ITEMS, 6)
    rows = table.input_rows(IDS)
    assert rows.shape == (2, 3, 6) and not rows[0, 2].any()
    assert torch.equal(rows[1, 2], table.input[-1])
    rows.sum().backward()
    assert table.input.grad[-1].unique().tolist() == [1] and not table.input.grad[1].any()


def test_padding_gives_the_last_item_no_gradient():
    table = IdTable(NUM_ITEMS, 6)
    table.input_rows(torch.full((2, 3), NUM_ITEMS)).sum().backward()
    assert not table.input.grad.any()


def test_output_rows_have_unit_length_and_may_be_untied():
    tied, untied = IdTable(NUM_ITEMS, 6), IdTable(NUM_ITEMS, 6, tied=False)
    for table in (tied, untied):
        torch.testing.assert_close(table.output_rows().norm(dim=1), torch.ones(NUM_ITEMS))
        torch.testing.assert_close(table.output_rows(IDS[1]), table.output_rows()[IDS[1]])
    assert tied.output is None
    assert not torch.allclose(untied.output_rows(), torch.nn.functional.normalize(untied.input, dim=1))
    assert abs(tied.input.std().item() - 0.02) < 0.003


def test_frozen_rows_are_read_without_a_copy_and_without_a_gradient():
    features = make_data().image
    table = FrozenTable(features, NUM_X, projection="none", width=5, missing="renormalise")
    assert table.rows.data_ptr() == features.rows.ctypes.data
    assert not list(table.parameters()) and not table.state_dict() and table.width == WIDTHS["image"]


@pytest.mark.parametrize("projection", ["none", "linear", "mlp"])
@pytest.mark.parametrize("missing", ["renormalise", "domain_mean", "learned"])
def test_rows_of_all_and_of_some_items_agree(projection, missing):
    table = frozen(projection=projection, missing=missing)
    everything = table.output_rows()
    assert everything.shape == (NUM_ITEMS, WIDTHS["image"] if projection == "none" else 5)
    torch.testing.assert_close(table.output_rows(IDS[1]), everything[IDS[1]])
    torch.testing.assert_close(table.input_rows(IDS), table.input_rows(IDS, everything))
    lengths = table.input_rows(IDS).norm(dim=-1)
    absent = 0.0 if missing == "renormalise" else 1.0
    torch.testing.assert_close(lengths, torch.tensor([[absent, 1, 0], [absent, absent, 1]]))


def test_missing_rows_of_each_rule():
    has = np.ones(NUM_ITEMS, dtype=bool)
    has[list(NO_IMAGE)] = False
    renormalise, mean, learned = (frozen(missing=name) for name in ("renormalise", "domain_mean", "learned"))
    assert torch.equal(renormalise.has, torch.from_numpy(has)) and mean.has is None and learned.has is None
    rows = make_data().image.rows
    for part, item in ((np.arange(NUM_X), 0), (np.arange(NUM_X, NUM_ITEMS), NUM_X + 5)):
        expected = rows[part][has[part]].mean(0)
        np.testing.assert_allclose(mean.output_rows()[item], expected / np.linalg.norm(expected), rtol=1e-5)
    torch.testing.assert_close(learned.output_rows()[0], torch.nn.functional.normalize(learned.missing, dim=0))
    learned.output_rows()[0, 0].backward()
    assert learned.missing.grad.any()


def test_the_mean_of_a_domain_leaves_the_features_themselves_alone():
    features = make_data().image
    before = features.rows.tobytes()
    FrozenTable(features, NUM_X, projection="none", width=5, missing="domain_mean")
    assert features.rows.tobytes() == before


def test_nothing_is_masked_where_nothing_is_missing():
    assert (
        FrozenTable(make_data(missing=False).image, NUM_X, projection="none", width=5, missing="renormalise").has
        is None
    )
