"""Vary settings of one system over seeds: the command `llmemf study`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("study.py")
