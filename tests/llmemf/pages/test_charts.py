import pytest

from llmemf.pages.charts import Line, indent, inset, linear_axis, log_axis, text_axis, whole_axis


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.0199, 0.053), (-3.2, 7.7), (1e-7, 3e-7), (99, 100_000)])
def test_ticks_are_where_they_say(low, high):
    axis = linear_axis(low, high)
    assert 2 <= len(axis.ticks) <= 8
    for place, text in axis.ticks:
        assert 0 <= place <= 1 and axis.at(float(text)) == pytest.approx(place, abs=1e-6)


def test_a_single_value_has_an_axis():
    for value in (0.0, 0.05, -2.0):
        axis = linear_axis(value, value)
        assert axis.low < value < axis.high and 0 < axis.at(value) < 1
    assert whole_axis(1).ticks == ((0.5, "1"),)


def test_logarithmic_ticks():
    axis = log_axis(1e-4, 1e-2, count=5)
    assert [text for _, text in axis.ticks] == ["1e-4", "3e-4", "1e-3", "3e-3", "0.01"]
    assert axis.at(1e-3) == pytest.approx(0.5) and axis.ticks[2][0] == pytest.approx(0.5)
    assert len(log_axis(1e-9, 1.0).ticks) <= 6


def test_epochs_are_whole_and_texts_stand_in_the_middle_of_their_part():
    assert [text for _, text in whole_axis(5).ticks] == ["1", "2", "3", "4", "5"]
    assert len(whole_axis(100).ticks) <= 9
    assert text_axis(["a", "b"]).ticks == ((0.25, "a"), (0.75, "b"))


def test_the_plane_has_its_origin_below():
    assert Line([(0, 0), (1, 1)], "l").path == "M0 1000L1000 0" and Line([], "l").path == ""


def test_room_at_the_ends_moves_dots_and_ticks_alike():
    axis = linear_axis(0, 1)
    assert [place for place, _ in inset(axis).ticks] == [indent(place) for place, _ in axis.ticks]
