"""Several systems or settings under one protocol: same budget, seeds, one look at the test split, tests, tables."""
