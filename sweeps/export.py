"""Write the best model of a sweep to a folder: the command `llmemf export`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("export.py")
