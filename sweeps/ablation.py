"""Take LLM-EMF apart on a scenario: the command `llmemf ablation`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("ablation.py")
