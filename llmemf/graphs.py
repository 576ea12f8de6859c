"""Training steps replayed as a CUDA graph: one launch instead of a thousand, where shapes repeat.

The first steps run eagerly and count; then one step is recorded and checked against the same step taken eagerly from the same
state. Where the check fails, or the step cannot be recorded (it reads a number from the device, say), training goes on
eagerly, and one line says so. A batch of another size (the last of an epoch) runs eagerly too.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Hashable, Sequence
from typing import Protocol

import torch
from torch import Tensor

log = logging.getLogger(__name__)

WARM_UP = 3
"""Eager steps before a recording: libraries and the optimiser allocate in them."""
LOSS_TOLERANCE, STEP_TOLERANCE = 1e-4, 0.05
"""Largest relative differences of the loss, and of what the step adds to the state, between a replay and an eager step. Sums
by atomic additions differ in their last digits, and Adam's first steps enlarge what is nearly zero."""


class Recording(Protocol):
    """A step that can be taken again."""

    def replay(self) -> None:
        """Do what was recorded, on what its inputs hold now."""


def record_on_gpu(step: Callable[[], None]) -> Recording:
    """Record what a step does as a CUDA graph, without doing it."""
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    return graph


class GraphedSteps:
    """A training step of one batch, `steps(index)`, replayed where it can be.

    Args:
        step: takes the (B,) sequences of a batch, changes the state, returns the loss; reads nothing on the host.
        state: all tensors that a step changes.
        signature: what beside the batch a recording depends on; when it changes, the step is recorded anew.
        prepare: called once before the first recording.
        record: how to record.
    """

    def __init__(
        self,
        step: Callable[[Tensor], Tensor],
        *,
        state: Callable[[], Sequence[Tensor]],
        signature: Callable[[], Hashable] = tuple,
        prepare: Callable[[], None] = lambda: None,
        device: torch.device | None = None,
        record: Callable[[Callable[[], None]], Recording] = record_on_gpu,
    ) -> None:
        self._step, self._state, self._signature, self._prepare = step, state, signature, prepare
        self._device, self._record = device, record
        self._warm, self._recording, self._seen = 0, None, None
        self._index: Tensor | None = None
        self._loss: Tensor | None = None
        self.why_eager: str | None = None

    def __call__(self, index: Tensor) -> Tensor:
        """Take one step; the loss, a tensor of its own."""
        if self.why_eager is not None or (self._index is not None and self._index.shape != index.shape):
            return self._step(index)
        if self._index is None:
            self._index = index.clone()
        if self._warm < WARM_UP:
            self._warm += 1
            return self._eagerly_aside(index)
        signature = self._signature()
        if self._recording is None or signature != self._seen:
            self._seen = signature
            return self._begin(index)
        self._index.copy_(index)
        self._recording.replay()
        return self._loss.clone()

    def _eagerly_aside(self, index: Tensor) -> Tensor:
        """An eager step on a stream of its own, as recordings want it."""
        if self._device is None or self._device.type != "cuda":
            return self._step(index)
        aside, main = torch.cuda.Stream(self._device), torch.cuda.current_stream(self._device)
        aside.wait_stream(main)
        with torch.cuda.stream(aside):
            loss = self._step(index)
        main.wait_stream(aside)
        loss.record_stream(main)
        return loss

    def _begin(self, index: Tensor) -> Tensor:
        """Record a step and take it, replayed if the replay does what the eager step does, else eagerly."""
        self._recording = None
        self._index.copy_(index)
        self._prepare()
        try:
            recording = self._record(self._hold_step)
        except RuntimeError as error:
            return self._give_up(index, f"a step cannot be recorded ({_first_line(error)})")
        tensors = [t.detach() for t in self._state()]
        before, random = [t.clone() for t in tensors], self._random_state()
        eager_loss = self._step(index).clone()
        eager = [t.clone() for t in tensors]
        self._put_back(tensors, before, random)
        recording.replay()
        difference = _difference(tensors, eager, before)
        loss_difference = float((self._loss - eager_loss).abs() / eager_loss.abs().clamp(min=1e-12))
        if loss_difference <= LOSS_TOLERANCE and difference <= STEP_TOLERANCE:
            self._recording = recording
            return self._loss.clone()
        self._put_back(tensors, eager, None)
        self._say(f"a replayed step differs from an eager one (loss {loss_difference:.1e}, state {difference:.1e})")
        return eager_loss

    def _hold_step(self) -> None:
        self._loss = self._step(self._index)

    def _random_state(self) -> Tensor | None:
        on_gpu = self._device is not None and self._device.type == "cuda"
        return torch.cuda.get_rng_state(self._device) if on_gpu else torch.get_rng_state()

    def _put_back(self, tensors: Sequence[Tensor], values: Sequence[Tensor], random: Tensor | None) -> None:
        with torch.no_grad():
            for tensor, value in zip(tensors, values):
                tensor.copy_(value)
        if random is not None:
            if self._device is not None and self._device.type == "cuda":
                torch.cuda.set_rng_state(random, self._device)
            else:
                torch.set_rng_state(random)

    def _give_up(self, index: Tensor, why: str) -> Tensor:
        self._say(why)
        return self._step(index)

    def _say(self, why: str) -> None:
        self.why_eager = why
        log.warning("training without CUDA graphs: %s", why)


def _difference(found: Sequence[Tensor], wanted: Sequence[Tensor], before: Sequence[Tensor]) -> float:
    """Largest relative difference of what was added to a tensor; infinite where one is not a number."""
    worst = 0.0
    for a, b, start in zip(found, wanted, before):
        moved, apart = float((b.double() - start.double()).norm()), float((a.double() - b.double()).norm())
        share = apart / moved if moved > 0 else (0.0 if apart == 0 else torch.inf)
        worst = max(worst, torch.inf if math.isnan(share) else share)
    return worst


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0]
