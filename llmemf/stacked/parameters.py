"""The parameters of K trials in common storage: one leaf for the forward pass, contiguous slices for the optimisers.

Modules of one shape within a trial (the encoders of one sequence) may form a group: their parameters then lie side by side
and become one leaf as well. Two storages per group, for parameters that L2 acts on and for the rest, are what the optimiser
sees: per trial a handful of long vectors in place of hundreds of small tensors.

Shapes: K trials, G modules of a group, S numbers of a module's parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from llmemf.training import Trainer, optimizer_of, parameter_groups


class Storage:
    """Parameters of the same names in G modules of K trials, as (K G, S) numbers and gradients.

    Args:
        members: per trial and module its parameters by name, K G mappings, those of a trial one after the other.
        trials: K.
    """

    def __init__(self, members: Sequence[Mapping[str, nn.Parameter]], trials: int) -> None:
        self.members, self.per_trial = members, len(members) // trials
        self.values = torch.stack([torch.cat([p.detach().flatten() for p in own.values()]) for own in members])
        self.gradients = torch.zeros_like(self.values)
        self.leaves: dict[str, Tensor] = {}
        self.leaf_gradients: dict[str, Tensor] = {}
        self._places: dict[str, slice] = {}
        start = 0
        for name, parameter in members[0].items():
            place = self._places[name] = slice(start, start + parameter.numel())
            shape = (len(members), *parameter.shape)
            self.leaves[name] = self.values[:, place].view(shape).requires_grad_()
            self.leaf_gradients[name] = self.gradients[:, place].view(shape)
            start = place.stop
        for row, own in zip(self.values, members):
            for name, parameter in own.items():
                parameter.data = row[self._places[name]].view(parameter.shape)

    def vector(self, trial: int) -> nn.Parameter:
        """All of one trial's numbers as one parameter that shares them, and their gradient."""
        rows = slice(trial * self.per_trial, (trial + 1) * self.per_trial)
        vector = nn.Parameter(self.values[rows].view(-1))
        vector.grad = self.gradients[rows].view(-1)
        return vector

    def pieces(self, trial: int) -> list[tuple[nn.Parameter, slice]]:
        """The parameters of one trial and where each lies in its vector."""
        size, found = self.values.shape[1], []
        for number in range(self.per_trial):
            for name, parameter in self.members[trial * self.per_trial + number].items():
                place = self._places[name]
                found.append((parameter, slice(number * size + place.start, number * size + place.stop)))
        return found

    def release(self) -> None:
        """Give every trial its own copy of its parameters."""
        for own in self.members:
            for parameter in own.values():
                parameter.data = parameter.data.clone()


class StackedParameters:
    """Parameters and optimisers of K trials.

    Args:
        trainers: the trials; their parameters share the storage until `release`.
        groups: names of modules that form a group, per group; "" stands for the rest.
        unused: names of modules that no loss reaches: they stay as they are.
    """

    def __init__(self, trainers: Sequence[Trainer], groups: Sequence[Sequence[str]], unused: Sequence[str]) -> None:
        self.trainers = trainers
        self._storages: dict[tuple[str, bool], Storage] = {}
        named = [{name: p for name, p in trainer.model.named_parameters() if p.requires_grad} for trainer in trainers]
        grouped = tuple(f"{module}." for group in groups for module in group)
        left_alone = tuple(f"{module}." for module in unused)
        for group in groups:
            for decayed in (True, False):
                members = [_below(own, module, decayed) for own in named for module in group]
                if members[0]:
                    self._storages[group[0], decayed] = Storage(members, len(trainers))
        for name, parameter in named[0].items():
            # A storage of its own keeps a large table contiguous.
            if not name.startswith((*grouped, *left_alone)):
                self._storages[name, parameter.ndim >= 2] = Storage([{"": own[name]} for own in named], len(trainers))
        self._vectors = [
            {key: storage.vector(k) for key, storage in self._storages.items()} for k in range(len(trainers))
        ]
        parts = []
        for trainer, vectors in zip(trainers, self._vectors):
            decayed, other = ([v for (_, kind), v in vectors.items() if kind == wanted] for wanted in (True, False))
            parts += parameter_groups(decayed, other, trainer.config)
        self.optimizer = optimizer_of([part for part in parts if part["params"]], trainers[0].config)
        for k, trainer in enumerate(trainers):
            self._take_state(k, trainer.optimizer)

    def group(self, module: str) -> dict[str, Tensor]:
        """Leaves (K G, ...) of a group, named by its first module, by their names within the module."""
        found: dict[str, Tensor] = {}
        for decayed in (True, False):
            if storage := self._storages.get((module, decayed)):
                found |= storage.leaves
        return found

    def single(self, name: str) -> Tensor | None:
        """Leaf (K, ...) of a parameter outside the groups; None where it is not trained."""
        for decayed in (True, False):
            if storage := self._storages.get((name, decayed)):
                return storage.leaves[""]
        return None

    def backward(self, loss: Tensor) -> None:
        """Put the gradient of a scalar where the optimisers read it."""
        leaves = [leaf for storage in self._storages.values() for leaf in storage.leaves.values()]
        places = [place for storage in self._storages.values() for place in storage.leaf_gradients.values()]
        found = torch.autograd.grad(loss, leaves, materialize_grads=True)
        torch._foreach_copy_(places, found)

    def step(self) -> None:
        """Clip every trial's gradient as its settings say, then let all optimisers take their step."""
        for trainer, vectors in zip(self.trainers, self._vectors):
            if trainer.config.clip_value:
                nn.utils.clip_grad_value_(vectors.values(), trainer.config.clip_value)
            if trainer.config.clip_norm:
                nn.utils.clip_grad_norm_(vectors.values(), trainer.config.clip_norm)
        self.optimizer.step()

    def give_state(self, trial: int) -> None:
        """Write the optimiser's state of one trial into its trainer's own optimiser, as copies."""
        own = self.trainers[trial].optimizer
        for key, vector in self._vectors[trial].items():
            state = self.optimizer.state.get(vector)
            if not state:
                continue
            for parameter, place in self._storages[key].pieces(trial):
                own.state[parameter] = {
                    name: (value[place].view(parameter.shape) if value.ndim else value).clone()
                    for name, value in state.items()
                }

    def release(self) -> None:
        """Give every trial its parameters and its optimiser's state back; the stack is of no use any more."""
        for k in range(len(self.trainers)):
            self.give_state(k)
        for storage in self._storages.values():
            storage.release()

    def _take_state(self, trial: int, own: torch.optim.Optimizer) -> None:
        for key, vector in self._vectors[trial].items():
            pieces = self._storages[key].pieces(trial)
            known = [own.state[parameter] for parameter, _ in pieces if own.state.get(parameter)]
            if not known:
                continue
            if len(known) != len(pieces):
                raise ValueError("an optimiser knows some parameters of a module and not the others")
            self.optimizer.state[vector] = _joined(known, [parameter for parameter, _ in pieces])


def _below(parameters: Mapping[str, nn.Parameter], module: str, decayed: bool) -> dict[str, nn.Parameter]:
    """Parameters of a module by their names within it, those that L2 acts on or the rest."""
    return {
        name.removeprefix(f"{module}."): parameter
        for name, parameter in parameters.items()
        if name.startswith(f"{module}.") and (parameter.ndim >= 2) == decayed
    }


def _joined(states: Sequence[Mapping[str, Any]], parameters: Sequence[nn.Parameter]) -> dict[str, Tensor]:
    """One optimiser's state for parameters that lie end to end; they have taken the same number of steps."""
    joined = {}
    for name in states[0]:
        if name == "step":
            if len({float(state[name]) for state in states}) > 1:
                raise ValueError("parameters of one module have taken different numbers of steps")
            joined[name] = states[0][name].clone()
        else:
            joined[name] = torch.cat([state[name].flatten() for state in states])
    return joined
