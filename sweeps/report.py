"""Write what came out of a sweep: the command `llmemf report`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("report.py")
