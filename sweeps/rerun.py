"""Train a sweep's best configurations over seeds: the command `llmemf rerun`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("rerun.py")
