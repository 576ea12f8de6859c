"""The systems, one file each. Adding a system is one file and one line here."""

from __future__ import annotations

from importlib import import_module

from llmemf.errors import InputError, nearest

MODELS = {
    "c2dsr": "llmemf.models.c2dsr:C2DSR",
    "lecdsr": "llmemf.models.lecdsr:LeCDSR",
    "llm_emf": "llmemf.models.llm_emf:LLMEMF",
}


def model_class(name: str) -> type:
    """The class of a system by its short name.

    Raises:
        InputError: there is no such system; the nearest name is offered.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}: {nearest(name, MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(import_module(module), attribute)
