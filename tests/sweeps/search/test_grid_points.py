import pytest

from llmemf.errors import InputError
from llmemf.models import model_class
from sweeps.search.grid_points import check_points, choose_points
from sweeps.search.space_entries import build_space
from sweeps.state.sweep_record import SweepRecord

LLM_EMF = model_class("llm_emf").config_class
IDS = {"model": "llm_emf", "modalities": ["id"], "alpha": 0.5, "beta": 0.2}


def record(**values):
    base = {
        "name": "s1",
        "requested": "sample",
        "scenario": "sample",
        "data_root": "",
        "storage": "",
        "tracking_uri": "",
    }
    return SweepRecord(**base, **values)


def test_combinations_that_the_model_refuses_are_left_out_and_named():
    space = build_space({"id_dim": [48, 64], "heads": [1, 3]})
    kept, configs, check, notices = check_points(LLM_EMF, IDS, space)
    assert kept.size == 4 and len(notices) == 1
    assert "1 of 4 grid points" in notices[0] and "heads = 3" in notices[0] and "64" in notices[0]
    points, trials = choose_points(
        record(search="grid"), kept, whole_grid=True, accepts=lambda point: not check.problem(point)
    )
    assert trials == 3 and sorted((p["id_dim"], p["heads"]) for p in points) == [(48, 1), (48, 3), (64, 1)]
    assert {(config.id_dim, config.heads) for config in configs} <= {(48, 1), (48, 3), (64, 1)}


def test_a_value_that_fits_to_nothing_is_dropped_from_the_space():
    kept, _, check, notices = check_points(LLM_EMF, IDS, build_space({"id_dim": [48, 64], "heads": [1, 5, 3]}))
    assert [point[0] for point in kept.blocks[1].points] == [1, 3]
    assert check.problem({"id_dim": 48, "heads": 5}) and not check.problem({"id_dim": 48, "heads": 3})
    assert list(kept.dropped_by.values()) == [1] and "1 of 4" in notices[0]


def test_a_space_without_a_valid_point_is_refused():
    with pytest.raises(InputError, match="heads = "):
        check_points(LLM_EMF, IDS, build_space({"id_dim": [48, 64], "heads": [5, 7]}))


def test_a_range_is_checked_at_its_low_end():
    kept, _, check, notices = check_points(LLM_EMF, IDS, build_space({"lr": {"low": 1e-4, "high": 1e-2, "log": True}}))
    assert kept.size == 1 and not notices and check.config({}).lr == 1e-4
