"""Several sweeps beside each other."""

import pytest
from report_fakes import make_sweep, rising, trial
from rich.console import Console

from llmemf.errors import InputError
from sweeps.reporting.write import write_beside


def test_sweeps_stand_beside_each_other_with_what_differs(tmp_path):
    one = make_sweep(tmp_path, [trial(rising(0.05)), trial(rising(0.06))], name="one", tests={2: {"test/mrr": 0.055}})
    two = make_sweep(tmp_path, [trial(rising(0.08)), trial([0.1], "failed")], name="<two>", epochs=9)
    page = write_beside([one, two], Console(quiet=True))
    text = page.read_text()
    assert page.parent == one.folder and "&lt;two&gt;" in text and "<two>" not in text
    assert ">0.0550" in text and 'class="best">0.0788' in text, "the test of one, the best objective of both"
    assert ">epochs<" not in text and "epochs at most" in text and ">lr" in text
    assert text.count('class="l s0"') == text.count('class="l s1"') == 2


def test_sweeps_on_other_data_are_warned_of_and_two_of_one_name_refused(tmp_path):
    one = make_sweep(tmp_path, [trial(rising(0.05))], name="one")
    two = make_sweep(tmp_path, [], name="two", status="planned")
    two.fingerprint = "0" * 64
    assert "different data" in write_beside([one, two], Console(quiet=True)).read_text()
    with pytest.raises(InputError, match="one one"):
        write_beside([one, one], Console(quiet=True))


def test_a_sweep_of_one_epoch_is_seen_beside_one_of_several(tmp_path):
    one = make_sweep(tmp_path, [trial([0.05]), trial([0.04])], name="one", epochs=1)
    two = make_sweep(tmp_path, [trial(rising(0.08)), trial(rising(0.07))], name="two")
    text = write_beside([one, two], Console(quiet=True)).read_text()
    assert text.count('class="d s0"') == 1 and 'class="d s1"' not in text
