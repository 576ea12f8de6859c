"""pi-Net, PSJNet and MIFN step by step in NumPy, one history at a time, written from their equations.

A history is a list of global item ids in the order of time; which part of it a target sees is the caller's choice.
"""

from __future__ import annotations

import numpy as np
import torch
from tiny import NUM_ITEMS, NUM_USERS, NUM_X

from llmemf.batches import DeviceSequences
from llmemf.config import build_config
from llmemf.models import model_class
from llmemf.scenarios.sequences import Sequences

ROWS = [[3, 35, 8, 50, 9, 4, 60], [40, 41, 2, 42], [7, 33], [1, 2, 3], [60, 61, 62], [5, 60, 6, 61, 62, 63, 7], [12]]
"""Histories; some of one domain alone."""


def make_model(name, data, *, seed=0, **values):
    """In double precision and evaluation mode, with every parameter far from where it starts."""
    torch.manual_seed(seed)
    settings = {"model": name, "dim": 5, "max_length": 12, "dropout": 0.4, "device": "cpu", **values}
    model = model_class(name)(build_config(model_class(name).config_class, settings), data).double()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.4)
    return model.eval()


def histories(rows):
    sequences = Sequences.from_rows(np.arange(len(rows)) % NUM_USERS, [[*row, 0] for row in rows])
    return _whole(sequences, True)


def training(rows):
    return _whole(Sequences.from_rows(np.arange(len(rows)) % NUM_USERS, rows), False)


def _whole(sequences, held_out):
    made = DeviceSequences(sequences, num_x=NUM_X, num_items=NUM_ITEMS, max_length=12, held_out=held_out)
    return made.batch(torch.arange(len(made)))


def arrays(module):
    return {
        name: value.detach().numpy() for name, value in module.state_dict().items() if isinstance(value, torch.Tensor)
    }


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max())
    return e / e.sum()


def linear(p, name, x):
    return p[f"{name}.weight"] @ x + p.get(f"{name}.bias", 0)


def gru(p, inputs):
    """States of torch's GRU: gates r, z, n stacked in this order."""
    width = p["weight_hh_l0"].shape[1]
    state, states = np.zeros(width), []
    for x in inputs:
        a, b = p["weight_ih_l0"] @ x + p["bias_ih_l0"], p["weight_hh_l0"] @ state + p["bias_hh_l0"]
        r, z = sigmoid(a[:width] + b[:width]), sigmoid(a[width : 2 * width] + b[width : 2 * width])
        n = np.tanh(a[2 * width :] + r * b[2 * width :])
        state = (1 - z) * n + z * state
        states.append(state)
    return states


def part(p, prefix):
    return {name.removeprefix(prefix): value for name, value in p.items() if name.startswith(prefix)}


def last(states, width):
    return states[-1] if states else np.zeros(width)


def walk(model, row):
    """Both domains' encoder states, and for each item of a domain the latest state of the other one before it."""
    p = arrays(model)
    width = model.config.dim
    lines = [[item for item in row if (item >= NUM_X) == bool(d)] for d in (0, 1)]
    states = [gru(part(p, f"encoders.{d}."), [p["items"][item] for item in lines[d]]) for d in (0, 1)]
    others = [[], []]
    counts = [0, 0]
    for item in row:
        own = int(item >= NUM_X)
        others[own].append(states[1 - own][counts[1 - own] - 1] if counts[1 - own] else np.zeros(width))
        counts[own] += 1
    return states, others


def transfer(model, states, others, line, *, bug=False):
    """Filter and transfer GRU along the line of one domain; all states."""
    p = part(arrays(model), "transfer.")
    f = part(p, f"filters.{line}.")
    width = model.config.dim
    recurrent_gate, recurrent_candidate = f["recurrent.weight"][:width], f["recurrent.weight"][width:]
    s, filtered = np.zeros(width), []
    for h, a in zip(states[line], others[line]):
        new = []
        for member in f.get("members", [None]):
            gate = linear(f, "gate", np.concatenate([h, a])) + recurrent_gate @ s
            candidate = linear(f, "candidate", h) + recurrent_candidate @ s
            if member is not None:
                gate = gate + f["member_gate.weight"] @ member
                candidate = candidate + f["member_gate.weight" if bug else "member_candidate.weight"] @ member
            new.append(sigmoid(gate) * s + (1 - sigmoid(gate)) * np.tanh(candidate))
        s = np.mean(new, axis=0)
        filtered.append(s)
    return gru(part(p, f"grus.{line}."), filtered)


def logits(model, z, h, domain):
    output = arrays(model)["output"][NUM_X:] if domain else arrays(model)["output"][:NUM_X]
    return output[:, :-1] @ np.concatenate([z, h]) + output[:, -1]


def two_targets(row, causal):
    """(target, what it sees) of each domain that the sequence has, by domain."""
    places = [max((p for p, item in enumerate(row) if (item >= NUM_X) == bool(d)), default=None) for d in (0, 1)]
    rest = [item for number, item in enumerate(row) if number not in places]
    return [[] if place is None else [(row[place], row[:place] if causal else rest)] for place in places]


def every_target(row):
    """(item, what came before it) of all items, by domain."""
    return [[(item, row[:p]) for p, item in enumerate(row) if (item >= NUM_X) == bool(d)] for d in (0, 1)]


def mean_loss(rows, config, value):
    """Sum over the domains of the mean of `value(seen, domain, target)` over targets that see anything."""
    losses = [[], []]
    for row in rows:
        found = every_target(row) if config.prefixes == "every" else two_targets(row, config.v2_causal)
        for domain in (0, 1):
            losses[domain] += [value(seen, domain, target) for target, seen in found[domain] if seen]
    return sum(np.mean(part) for part in losses if part)
