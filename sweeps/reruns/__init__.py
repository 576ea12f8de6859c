"""The best configurations of a sweep again, over seeds."""
