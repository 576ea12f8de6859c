"""Whether a sweep's trials are stacked: what was measured decides, and is said. The processes are stand-ins."""

import io
from types import SimpleNamespace

import pytest
from rich.console import Console

from llmemf.errors import InputError
from sweeps.cluster import resources
from sweeps.plan import Options, plan_sweep
from sweeps.stacking.stacks import check_stack, open_stacks


class FakeRay:
    """Processes that answer at once; every gain that is asked for is the one given."""

    def __init__(self, monkeypatch, gain):
        import ray

        self.started, self.killed = [], []
        answer = SimpleNamespace(remote=lambda chosen: gain)

        def start(name):
            self.started.append(SimpleNamespace(name=name, gain=answer))
            return self.started[-1]

        made = {
            "remote": lambda kind: SimpleNamespace(
                options=lambda **_: SimpleNamespace(remote=lambda *_: start(kind.__name__))
            ),
            "put": lambda value: value,
            "get": lambda value: value,
            "kill": self.killed.append,
        }
        for name, stand_in in made.items():
            monkeypatch.setattr(ray, name, stand_in)
        monkeypatch.setattr(resources, "machine", lambda: {"CPU": 2.0, "GPU": 0.0})


def sample_plan(tmp_path, **options):
    options = {"scenario": "sample", "stack": 4, "gpus_per_trial": 0, "storage": tmp_path / "mlruns", **options}
    return plan_sweep(Options(data_root=tmp_path, **options))


@pytest.mark.parametrize("gain, stacked", [(1.09, False), (1.1, True), (3.0, True)])
def test_the_measured_gain_decides(tmp_path, monkeypatch, gain, stacked):
    fake, plan, out = FakeRay(monkeypatch, gain), sample_plan(tmp_path), io.StringIO()
    found = open_stacks(plan.record, plan.configs, None, Console(file=out, width=200))
    said = f"stacks of 4 trials are {gain:.2f} times as fast as single ones here"
    if not stacked:
        assert found is None and fake.killed == fake.started and len(fake.killed) == 1
        assert f"{said}: trials run singly" in out.getvalue()
        return
    # Two processors: two stacks, and a place for each trial of both.
    assert [process.name for process in fake.started] == ["StackHost", "StackHost", "Places"] and not fake.killed
    assert (found.parallel, found.cpus_per_trial) == (8, 0.25)
    assert f"{said}: trials are stacked" in out.getvalue()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"ray_address": "auto"}, "leave out --ray-address or --stack"),
        ({"gpus_per_trial": 1}, "give --gpus-per-trial 0"),
        ({"model": "sasrec"}, "--stack: .*llm_emf"),
    ],
)
def test_what_has_no_stacked_form_is_refused(tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        plan = sample_plan(tmp_path, **options)
        check_stack(plan.record, plan.configs)
