"""`compile: true`: the training loss through torch.compile.

Encoders are compiled, the objective is not (`objective.exclude_from_compilation`). The draws of dropout are those of the eager
step (`fallback_random`), so that results differ by rounding alone. Nothing is recorded as a CUDA graph: the objective stands
between compiled parts, and what one part returned would be overwritten by the replay of the next.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

import torch
from torch import Tensor

from llmemf.errors import InputError
from llmemf.models.recommender import Recommender
from llmemf.objective import exclude_from_compilation


def compiled_loss(model: Recommender, device: torch.device) -> Callable[..., Tensor]:
    """The compiled `model.training_loss`; it compiles when it is first called.

    Raises:
        InputError: there is no compiler on this machine.
    """
    check_compiler(device)
    exclude_from_compilation()
    # The number of rows changes from batch to batch: one program for all of them.
    return torch.compile(model.training_loss, dynamic=True, options={"fallback_random": True})


def check_compiler(device: torch.device) -> None:
    """Raise InputError where torch.compile would find no compiler: for C++ on a CPU, for C with Triton on a GPU."""
    variable, usual = ("CC", ("gcc", "clang")) if device.type == "cuda" else ("CXX", ("g++", "clang++"))
    named = os.environ.get(variable)
    if not any(shutil.which(name) for name in ([named] if named else usual)):
        wanted = named or " or ".join(usual)
        raise InputError(f"compile = true needs a compiler: {wanted} is not here; install it, or set compile = false")
