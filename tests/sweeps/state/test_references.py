"""References of a sweep: kept, shown in order, and a best trial that is not above them."""

import pytest

from llmemf.errors import InputError
from sweeps.state.references import References

FOUND = References(
    {
        "chance": {"val/mrr": 0.01},
        "transitions": {"val/mrr": 0.05},
        "popularity": {"val/mrr": 0.03},
        "odd": {"val/loss": 1},
    }
)


def test_they_come_back_and_the_lowest_is_first(tmp_path):
    FOUND.save(tmp_path)
    again = References.load(tmp_path)
    assert again == FOUND
    assert list(again.objectives.items()) == [("chance", 0.01), ("popularity", 0.03), ("transitions", 0.05)]


@pytest.mark.parametrize(
    ("best", "named"), [(0.06, []), (0.05, ["transitions"]), (0.02, ["popularity", "transitions"])]
)
def test_a_best_trial_that_is_not_above_them_is_told(best, named):
    warning = FOUND.warning(best)
    assert [name for name in FOUND.objectives if name in warning] == named


def test_without_any_there_is_nothing_to_say(tmp_path):
    none = References.load(tmp_path)
    assert (none.line, none.warning(0.0)) == ("", "")


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "references.json").write_text("[]")
    with pytest.raises(InputError, match="references.json"):
        References.load(tmp_path)
