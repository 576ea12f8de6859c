"""Where the trials of a sweep run: this machine or a Ray cluster, checked before anything starts."""
