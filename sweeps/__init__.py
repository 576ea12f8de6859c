"""Sweeps of many trials: search, scheduling, tracking, studies and reports."""
