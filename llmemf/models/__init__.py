"""The systems, one file each. Adding a system is one file and one line here."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from llmemf.errors import InputError, nearest

if TYPE_CHECKING:
    from llmemf.models.recommender import Recommender

MODELS = {
    "abxi": "llmemf.models.abxi:ABXI",
    "bprmf": "llmemf.models.bprmf:BPRMF",
    "c2dsr": "llmemf.models.c2dsr:C2DSR",
    "gru4rec": "llmemf.models.gru4rec:GRU4Rec",
    "item_knn": "llmemf.models.item_knn:ItemKNN",
    "lecdsr": "llmemf.models.lecdsr:LeCDSR",
    "llm_emf": "llmemf.models.llm_emf:LLMEMF",
    "mifn": "llmemf.models.mifn:MIFN",
    "ncf_mlp": "llmemf.models.ncf_mlp:NCFMLP",
    "pi_net": "llmemf.models.pi_net:PiNet",
    "popularity": "llmemf.models.popularity:Popularity",
    "psjnet": "llmemf.models.psjnet:PSJNet",
    "sasrec": "llmemf.models.sasrec:SASRec",
    "sr_gnn": "llmemf.models.sr_gnn:SRGNN",
    "transitions": "llmemf.models.transitions:Transitions",
    "tri_cdr": "llmemf.models.tri_cdr:TriCDR",
}


def model_class(name: str) -> type[Recommender]:
    """The class of a system by its short name.

    Raises:
        InputError: there is no such system; the nearest name is offered.
    """
    if name not in MODELS:
        raise InputError(f"unknown model {name!r}: {nearest(name, MODELS)}")
    module, _, attribute = MODELS[name].partition(":")
    return getattr(import_module(module), attribute)
