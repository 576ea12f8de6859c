"""Recorded steps against eager ones; the recording itself is a stand-in that takes the step again on the held inputs."""

import logging

import pytest
import torch
from tiny import make_config, make_data

from llmemf.graphs import WARM_UP, GraphedSteps
from llmemf.training import Trainer


class Again:
    """A recording that keeps the step and takes it when it is replayed."""

    made = 0

    def __init__(self, step, spoil=None):
        self.step, self.spoil, self.replays = step, spoil, 0
        type(self).made += 1

    def replay(self):
        self.replays += 1
        self.step()
        if self.spoil is not None:
            self.spoil()


def make_trainer(**changes):
    trainer = Trainer(make_config(**changes), make_data())
    trainer.model.train()
    return trainer


def graphed(trainer, *, record=Again, **changes):
    def state():
        moments = [t for held in trainer.optimizer.state.values() for t in held.values()]
        return [*trainer.model.parameters(), *moments]

    return GraphedSteps(trainer.step, state=state, record=record, **changes)


def batches(count=9, size=8, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(0, 40, (size,), generator=generator) for _ in range(count)]


def weights(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_replayed_steps_are_eager_steps_on_every_batch(dropout):
    eager, replayed = make_trainer(dropout=dropout), make_trainer(dropout=dropout)
    steps = graphed(replayed)
    found = []
    for take in (eager.step, steps):
        torch.manual_seed(4)
        found.append([float(take(index)) for index in [*batches(), batches(1, 3)[0], *batches(2, seed=1)]])
    assert found[0] == found[1]
    assert torch.equal(weights(eager), weights(replayed))
    assert steps.why_eager is None and steps._recording.replays == 9 + 2 - WARM_UP


def test_losses_of_replays_are_tensors_of_their_own():
    steps = graphed(make_trainer())
    losses = [steps(index) for index in batches()]
    assert len({float(loss) for loss in losses}) == len(losses)


def test_a_replay_that_does_something_else_is_undone_and_announced(caplog):
    eager, trainer = make_trainer(dropout=0.3), make_trainer(dropout=0.3)

    def spoil():
        with torch.no_grad():
            next(trainer.model.parameters()).mul_(1.5)

    steps = graphed(trainer, record=lambda step: Again(step, spoil))
    found = []
    with caplog.at_level(logging.WARNING):
        for take in (eager.step, steps):
            torch.manual_seed(4)
            found.append([float(take(index)) for index in batches()])
    assert found[0] == found[1]
    assert torch.equal(weights(eager), weights(trainer))
    assert len(caplog.records) == 1 and "without CUDA graphs" in caplog.text and "differs" in caplog.text


def test_a_step_that_cannot_be_recorded_stays_eager_and_says_so_once(caplog):
    eager, trainer = make_trainer(), make_trainer()

    def refuse(step):
        raise RuntimeError("operation not permitted when stream is capturing\nmore")

    steps = graphed(trainer, record=refuse)
    with caplog.at_level(logging.WARNING):
        assert [float(eager.step(index)) for index in batches()] == [float(steps(index)) for index in batches()]
    assert [record.message for record in caplog.records] == [
        "training without CUDA graphs: a step cannot be recorded (operation not permitted when stream is capturing)"
    ]


def test_a_changed_signature_is_recorded_anew():
    trainer, signature = make_trainer(), [0]
    steps, before = graphed(trainer, signature=lambda: signature[0]), Again.made
    for number, index in enumerate(batches()):
        signature[0] = number >= 6
        steps(index)
    assert Again.made == before + 2


def test_on_a_cpu_the_setting_changes_nothing():
    assert [m["train/loss"] for m in Trainer(make_config(cuda_graphs=True), make_data()).epochs()] == [
        m["train/loss"] for m in Trainer(make_config(), make_data()).epochs()
    ]
