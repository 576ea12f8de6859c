"""Studies made of several sweeps: rows, each trained over seeds, in one table."""
