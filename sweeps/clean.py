"""Free disk space of sweeps: the command `llmemf clean`, from a checkout."""

from sweeps.cli.main import run_script

if __name__ == "__main__":
    run_script("clean.py")
