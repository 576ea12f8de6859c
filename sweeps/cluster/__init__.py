"""Where the trials of a sweep run: this machine or a Ray cluster, looked at before anything starts."""
