"""Several trials of one model and one shape, trained in lockstep in one process."""
