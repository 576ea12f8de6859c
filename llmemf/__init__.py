"""LLM-EMF and its comparison systems: everything about one trial, one model on one scenario."""

__version__ = "0.2.0"
