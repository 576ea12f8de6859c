"""Search the hyperparameters of a model on a scenario: the command `llmemf sweep`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("grid.py")
