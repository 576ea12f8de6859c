"""One thread per process: tests compute little, and threads of several processes on two cores wait for one another."""

import os

# Read once, when torch is imported; processes that tests start have it from here.
os.environ.setdefault("OMP_NUM_THREADS", "1")
