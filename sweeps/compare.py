"""Compare systems on a scenario: the command `llmemf compare`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("compare.py")
