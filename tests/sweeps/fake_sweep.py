"""Run a sweep of the fake trainer as its own process: `python fake_sweep.py NAME [--resume]`, in the current folder."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path[0] = str(Path(__file__).resolve().parents[2])
sys.path.append(str(Path(__file__).resolve().parent))

from rich.console import Console
from sweep_fakes import fake_evaluate, slow_trial, tiny_data

from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.resume import plan_resume
from sweeps.core.run import run_sweep
from sweeps.core.sweep import TrialBackend


def main(name: str, resume: bool) -> int:
    if resume:
        plan = plan_resume(Options(name=name))
    else:
        plan = plan_sweep(Options(scenario="sample", name=name, trials=6, epochs=6, assignments=["lr=1e-3,3e-3"]))
    console = Console(file=sys.stdout, width=120, highlight=False)
    backend = TrialBackend(data=tiny_data(), trainable=slow_trial, evaluate=fake_evaluate)
    return run_sweep(plan, console, backend=backend).exit_code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], "--resume" in sys.argv))
