"""How long does one call take that asks for many users at once?

    python benchmarks/serving.py [--items 100000] [--users 5000] [--models sasrec "llm_emf+modalities=[id,text]"] [--width 256]
        [--threads 2] [--json out.json]

The call is what MLflow's server hands to an exported model: a history of 6 to 15 items per user, half of the users asking for
each domain, ten items each. A model has its default settings but for those behind its name, each after a `+`, and weights as
they are drawn. Data is made up, with random features of a `--width`; memory comes in large pages, as `llmemf serve` has it.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

os.environ.setdefault("THP_MEM_ALLOC_ENABLE", "1")

import numpy as np
import pandas as pd
import torch
from figures import machine, parser, report, timed
from made_up import made_up

from llmemf.config import build_config, parse_assignment
from llmemf.export.folder import ExportedModel, build_models
from llmemf.export.recommendation import Recommendations
from llmemf.models import model_class

IDS_ALONE = "llm_emf+modalities=[id]+alpha=1+beta=0+id_dim=256+heads=2+loss_roles=symmetric+fusion=states"
"""LLM-EMF with the settings of docs/results.md that decide the time."""


def served(variant: str, items: int, users: int, width: int) -> tuple[Recommendations, list[dict]]:
    """A model, `NAME` or `NAME+KEY=VALUE+...`, as it is served, and the requests of a call."""
    name, *own = variant.split("+")
    kind = model_class(name)
    config = build_config(kind.config_class, {"model": name, "device": "cpu", **dict(map(parse_assignment, own))})
    data = made_up(items, max(users, 1000), width=width)
    weights = {f"joint/{key}": tensor for key, tensor in kind(config, data).state_dict().items()}
    models = build_models(config, data, ["joint"], weights, torch.device("cpu"))
    ids = [f"i{number}" for number in range(items)]
    manifest = {"domains": list(data.domains), "num_x": data.num_x, "num_users": data.num_users}
    table = pd.DataFrame({"external_id": ids, "title": ids})
    counts = np.bincount(data.train.items, minlength=items)
    model = ExportedModel(Path(), manifest, config, table, {}, models, torch.device("cpu"), counts)
    requests = [
        {"history": [ids[item] for item in data.train.row(user)], "domain": data.domains[user % 2]}
        for user in range(users)
    ]
    return Recommendations(model), requests


def main() -> None:
    options = parser(__doc__ or "", items=100_000, users=5_000, threads=2, width=512)
    options.add_argument("--models", nargs="+", default=[IDS_ALONE, "llm_emf", "sasrec", "item_knn"])
    chosen = options.parse_args()
    torch.set_num_threads(chosen.threads)
    found: dict[str, float | str] = {"machine": machine()}
    for name in chosen.models:
        service, requests = served(name, chosen.items, chosen.users, chosen.width)
        service.answers(requests[:2])
        found[f"{name}: one user, seconds"] = timed(lambda: service.answers(requests[:1]))  # noqa: B023  called at once
        before = time.process_time()
        found[f"{name}: {chosen.users:,} users, seconds"] = timed(lambda: service.answers(requests))  # noqa: B023
        found[f"{name}: {chosen.users:,} users, seconds of all cores"] = time.process_time() - before
    report(found, chosen.json)


if __name__ == "__main__":
    main()
