import json

import pytest
from report_fakes import make_sweep, rising, trial

from sweeps.reporting.gather import gather
from sweeps.reporting.spending import hours, spend


def spending_of(record):
    return spend(list(gather(record).trials.values()))


def test_numbers_that_stand_beside_each_other_have_one_unit():
    assert [hours(seconds, 4000.0) for seconds in (0.0, 36.0, 4000.0)] == ["-", "0.01 h", "1.1 h"]
    assert [hours(seconds, 300.0) for seconds in (6.0, 300.0)] == ["0.1 min", "5 min"] and hours(3600e3) == "1,000 h"


def test_time_and_savings_by_hand(tmp_path):
    trials = [trial(rising(0.05), seconds=3.0), trial([0.01, 0.02], "pruned", seconds=5.0), trial([], "failed")]
    record = make_sweep(tmp_path, trials, cpus_per_trial=2, gpus_per_trial=0.5)
    spending = spending_of(record)
    # 10 s of start-up and 6 x 3 s; 10 s and 2 x 5 s; 12 s.
    assert spending.by_outcome["completed"].place_seconds == 28 and spending.by_outcome["pruned"].epochs == 2
    assert spending.total.cpu_seconds == 2 * (28 + 20 + 12) and spending.total.gpu_seconds == 30
    # 4 epochs of 5 s were not trained.
    assert spending.saved_epochs == 4 and spending.saved_cpu_seconds == pytest.approx(40)
    assert spending.saved_gpu_seconds == pytest.approx(10) and spending.uses_gpus


def test_the_saving_counts_to_where_completed_trials_stop_by_themselves(tmp_path):
    trials = [trial(rising(0.05)[:4]), trial([0.01, 0.02], "pruned")]
    assert spending_of(make_sweep(tmp_path, trials)).saved_epochs == 2
    alone = make_sweep(tmp_path, [trial([0.01, 0.02], "pruned")], name="alone")
    assert spending_of(alone).saved_epochs == 4


def test_each_part_of_a_trial_counts_by_the_resources_it_had(tmp_path):
    record = make_sweep(tmp_path, [trial([0.01, 0.02])], opened={"cpus_per_trial": 1, "gpus_per_trial": 1})
    path = record.folder / "journal.jsonl"
    lines = path.read_text().splitlines()
    again = json.dumps({"event": "opened", "time": 1_800_000_003_500, "cpus_per_trial": 4, "gpus_per_trial": 0})
    place = next(number for number, line in enumerate(lines) if '"epoch": 2' in line)
    path.write_text("\n".join([*lines[:place], again, *lines[place:]]) + "\n")
    total = spending_of(record).total
    assert total.cpu_seconds == 12 + 4 * 2 and total.gpu_seconds == 12
