"""Serve MLflow's pages: the command `llmemf ui`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("ui.py")
