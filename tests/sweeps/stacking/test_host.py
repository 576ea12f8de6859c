"""The process of a stack: when an epoch begins, who takes part in it, and what a failure of one costs the others."""

import asyncio

import pytest
from sweep_fakes import tiny_data

from llmemf.config import build_config
from llmemf.errors import InputError
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.models.sasrec import SASRecConfig
from llmemf.training import NonFiniteLoss, Trainer
from sweeps.plan import Options, plan_resume, plan_sweep
from sweeps.settings import SweepRecord
from sweeps.stacking import host as host_module
from sweeps.stacking.host import StackHost
from sweeps.stacking.stacks import alike, check_stack
from sweeps.stacking.trial import Places

SETTINGS = {"model": "llm_emf", "modalities": ["id"], "id_dim": 4, "epochs": 3, "patience": 0, "dropout": 0.0}


def settings(**values):
    return {**SETTINGS, **values}


@pytest.fixture
def host():
    return StackHost(tiny_data().trial_data, 1)


def expected(**values):
    """Losses of a single trainer, epoch by epoch."""
    trainer = Trainer(build_config(LLMEMFConfig, settings(device="cpu", **values)), tiny_data().trial_data)
    return [metrics["train/loss"] for metrics in trainer.epochs()]


def test_members_train_together_when_all_have_asked(host, monkeypatch):
    monkeypatch.setattr(host_module, "LEAST_WAITED", 3600.0)

    async def run():
        await host.join(0, settings(lr=1e-3))
        await host.join(1, settings(lr=1e-2, seed=4))
        found = []
        for _ in range(3):
            # Nobody is waited for: the pause is an hour.
            found.append(await asyncio.gather(host.next_epoch(0), host.next_epoch(1)))
        return found

    found = asyncio.run(run())
    assert [one["train/loss"] for one, _ in found] == pytest.approx(expected(lr=1e-3), rel=1e-4)
    assert [other["train/loss"] for _, other in found] == pytest.approx(expected(lr=1e-2, seed=4), rel=1e-4)
    assert [one["epoch"] for one, _ in found] == [1, 2, 3]


def test_a_silent_member_holds_nobody_up_and_goes_on_at_its_own_epoch(host, monkeypatch):
    monkeypatch.setattr(host_module, "LEAST_WAITED", 0.001)

    async def run():
        await host.join(0, settings(lr=1e-3))
        await host.join(1, settings(lr=1e-2))
        alone = [await host.next_epoch(0) for _ in range(2)]
        together = await asyncio.gather(host.next_epoch(0), host.next_epoch(1))
        return alone, together

    alone, (first, second) = asyncio.run(run())
    losses = [metrics["train/loss"] for metrics in [*alone, first]]
    assert losses == pytest.approx(expected(lr=1e-3), rel=1e-4)
    assert (first["epoch"], second["epoch"]) == (3, 1)
    assert second["train/loss"] == pytest.approx(expected(lr=1e-2)[0], rel=1e-4)


def test_who_leaves_sets_the_others_going_and_a_freed_place_is_taken(host, monkeypatch):
    monkeypatch.setattr(host_module, "LEAST_WAITED", 3600.0)

    async def run():
        await host.join(0, settings(lr=1e-3))
        await host.join(1, settings(lr=1e-2))
        waiting = asyncio.ensure_future(host.next_epoch(0))
        await asyncio.sleep(0)
        await host.leave(1)
        first = await waiting
        await host.join(2, settings(lr=2e-3))
        return first, await asyncio.gather(host.next_epoch(0), host.next_epoch(2))

    first, (second, other) = asyncio.run(run())
    assert [first["epoch"], second["epoch"], other["epoch"]] == [1, 2, 1]
    with pytest.raises(KeyError, match="trial 1 is no member"):
        asyncio.run(host.next_epoch(1))


def test_a_member_that_diverges_fails_alone(host):
    async def run():
        await host.join(0, settings(lr=1e-3))
        await host.join(1, settings(lr=1e30))
        answers = []
        for _ in range(3):
            asked = [number for number in (0, 1) if number in host._members]
            answers += zip(asked, await asyncio.gather(*map(host.next_epoch, asked), return_exceptions=True))
        return answers

    answers = asyncio.run(run())
    failed = [answer for number, answer in answers if number == 1]
    assert isinstance(failed[-1], NonFiniteLoss) and "lr = 1e+30" in str(failed[-1])
    assert [answer["epoch"] for number, answer in answers if number == 0] == [1, 2, 3]


def test_a_member_moves_to_another_process_by_its_checkpoint(host, tmp_path):
    other = StackHost(tiny_data().trial_data, 1)

    async def run():
        await host.join(0, settings(lr=1e-3))
        await host.join(1, settings(lr=1e-2))
        await asyncio.gather(host.next_epoch(0), host.next_epoch(1))
        await host.save(1, str(tmp_path))
        await other.join(1, settings(lr=1e-2))
        assert await other.load(1, str(tmp_path)) == (1, False)
        return [await other.next_epoch(1) for _ in range(2)]

    assert [m["train/loss"] for m in asyncio.run(run())] == pytest.approx(expected(lr=1e-2)[1:], rel=1e-4)


def test_shapes_that_differ_are_stacks_of_their_own(host):
    async def run():
        await host.join(0, settings())
        await host.join(1, settings(id_dim=6))
        return await asyncio.gather(host.next_epoch(0), host.next_epoch(1))

    assert [metrics["epoch"] for metrics in asyncio.run(run())] == [1, 1]
    assert sorted(len(stack.members) for stack in host._stacks.values()) == [1, 1]


def test_a_trial_gets_the_emptiest_stack():
    places = Places(2)
    assert [places.take(number) for number in (3, 4, 5)] == [0, 1, 0]
    places.give(3)
    places.give(5)
    assert places.take(6) == 0
    assert places.take(4) == 1, "a trial that runs again leaves its old place first"


def test_what_cannot_be_stacked_is_refused_before_anything_starts(tmp_path):
    stored = {
        "name": "s",
        "requested": "sample",
        "scenario": "sample",
        "data_root": "",
        "storage": "",
        "tracking_uri": "",
    }
    config = build_config(LLMEMFConfig, SETTINGS)
    check_stack(SweepRecord(**stored, stack=4), [config])
    cases = [
        ({"ray_address": "auto"}, config, "--stack works on this machine alone"),
        ({"gpus_per_trial": 1}, config, "--stack trains on CPUs: give --gpus-per-trial 0"),
        ({}, build_config(SASRecConfig, {"model": "sasrec"}), "--stack: model = sasrec has no stacked form"),
    ]
    for values, wanted, message in cases:
        with pytest.raises(InputError, match=message):
            check_stack(SweepRecord(**stored, stack=4, **values), [wanted])
        check_stack(SweepRecord(**stored, **values), [wanted])
    options = Options(scenario="sample", name="s", storage=tmp_path, data_root=tmp_path, stack=4, gpus_per_trial=0)
    plan = plan_sweep(options)
    plan.record.folder.mkdir(parents=True)
    plan.record.save()
    assert plan_resume(Options(name="s", storage=tmp_path)).record.stack == 4
    assert plan_resume(Options(name="s", storage=tmp_path, stack=1)).record.stack == 1


def test_the_gain_is_measured_on_trials_of_the_shape_that_most_have():
    configs = [build_config(LLMEMFConfig, settings(**values)) for values in ({"id_dim": 6}, {"lr": 0.1}, {"lr": 0.2})]
    assert [found["lr"] for found in alike(configs, 3)] == [0.1, 0.2, 0.1]
