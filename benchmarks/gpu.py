"""What the speed settings give on a GPU: an epoch of Movie-Book's size under each of them, side by side.

    python benchmarks/gpu.py [--json out.json]
    python benchmarks/gpu.py --dry                  tiny sizes on a CPU, to see that every setting runs

The base is fp32 with TF32 products, the default. Against it stand `precision=bf16` (encoders), `objective_precision=fp16`,
and both. Of each: seconds of the first epoch, of the median of the further ones, of the validation of 7,644 cases, the memory
that torch reserved, and the ratio base / setting. Data is made up: 58,515 histories, 100,782 items, widths 256, 512 and 512.
A setting that does not run here is shown with its reason.
"""

from __future__ import annotations

import statistics
import sys

import torch
from figures import machine, parser, report, timed
from made_up import made_up

from llmemf.batches import TrialData
from llmemf.config import build_config
from llmemf.models import model_class
from llmemf.training import Trainer

HALF = {"precision": "bf16", "objective_precision": "fp16"}
SETTINGS = {
    "fp32 + TF32": {},
    "precision=bf16": {"precision": "bf16"},
    "objective_precision=fp16": {"objective_precision": "fp16"},
    "both": HALF,
}
BASE = "fp32 + TF32"
REAL = {"items": 100_782, "sequences": 58_515, "cases": 7_644, "candidates": 999, "width": 512}
DRY = {"items": 300, "sequences": 48, "cases": 12, "candidates": 20, "width": 16}


def epochs_of(data: TrialData, device: str, rounds: int, **settings: object) -> dict[str, float]:
    """Seconds of the first epoch, of the median of the further ones, and of a validation; GiB reserved."""
    width = data.text.width // 2
    config = {"model": "llm_emf", "device": device, "batch_size": 256, "id_dim": width, "eval_batch_size": 512}
    trainer = Trainer(build_config(model_class("llm_emf").config_class, {**config, "epochs": 1, **settings}), data)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    took = [timed(lambda number=number: trainer._train_epoch(number)) for number in range(1, rounds + 2)]
    found = {"first epoch": took[0], "epoch": statistics.median(took[1:]), "validation": timed(trainer._validate)}
    if device == "cuda":
        found["GiB"] = torch.cuda.max_memory_reserved() / 2**30
    return found


def measure(data: TrialData, device: str, rounds: int) -> dict[str, float | str]:
    """All figures by name."""
    found: dict[str, float | str] = {}
    for name, settings in SETTINGS.items():
        try:
            own = epochs_of(data, device, rounds, **settings)
        except Exception as error:  # noqa: BLE001  the others are measured all the same
            found[f"{name}: does not run"] = f"{type(error).__name__}: {str(error).splitlines()[0][:100]}"
            continue
        found |= {f"{name}: {part}": value for part, value in own.items()}
        if name != BASE and f"{BASE}: epoch" in found:
            found[f"{name}: base / it"] = found[f"{BASE}: epoch"] / own["epoch"]
    return found


def main() -> None:
    options = parser(__doc__, rounds=3)
    options.add_argument("--dry", action="store_true", help="tiny sizes on a CPU")
    given = options.parse_args()
    if not given.dry and not torch.cuda.is_available():
        sys.exit("error: no GPU is here; --dry runs tiny sizes on a CPU")
    device = "cpu" if given.dry else "cuda"
    data = made_up(**(DRY if given.dry else REAL))
    report({"machine": machine(), **measure(data, device, given.rounds)}, given.json)


if __name__ == "__main__":
    main()
