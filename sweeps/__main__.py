"""`python -m sweeps`: the console command `llmemf`, where it is not on the path."""

from sweeps.cli.main import main

if __name__ == "__main__":
    main()
