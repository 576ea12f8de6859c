"""What a sweep has done, on the disk: events, trials, weights, results."""
