"""Train the settings of docs/results.md, many at a time on one device, and print their table.

    python benchmarks/accuracy.py --data beauty_electronics --models abxi,llm_emf --seeds 11,12,13 --workers 8 --out results
    python benchmarks/accuracy.py --data beauty_electronics --models abxi,llm_emf --out results --test

The settings are those of accuracy.yaml; `--data-root` holds the prepared scenarios, as their files in sweeps/scenarios say.
Each trial is a process of one thread and leaves its checkpoint and a JSON file below `--out`; what is there is not trained
again. The table has validation alone. `--test` ranks the test split of what was trained: once, after everything was chosen.
Small models do not fill a GPU: several processes side by side need NVIDIA's MPS there to be worth while.
"""

from __future__ import annotations

import json
import multiprocessing
import statistics
import time
from pathlib import Path
from typing import Any

from figures import parser

from llmemf.batches import TrialData
from llmemf.checkpoint import rank_checkpoint
from llmemf.config import build_config, read_yaml
from llmemf.errors import InputError
from llmemf.features.finding import find_features
from llmemf.io import write_text
from llmemf.models import model_class
from llmemf.ranking import summarise
from llmemf.scenarios.scenario import find_scenario
from llmemf.training import Trainer

SETTINGS = Path(__file__).with_suffix(".yaml")


def settings_of(data: str, model: str) -> dict[str, Any]:
    """The chosen settings of a system on a data set.

    Raises:
        InputError: there are none.
    """
    rows = read_yaml(SETTINGS)["rows"]
    if model not in rows.get(data, {}):
        raise InputError(f"{SETTINGS.name} has no row {model!r} for {data!r}: it has {', '.join(rows.get(data, rows))}")
    return {"model": model, **rows[data]["every"], **rows[data][model]}


def run(task: dict[str, Any]) -> Path:
    """Train one row with one seed, or rank its test split; what was done before is left as it is."""
    import torch

    torch.set_num_threads(1)
    folder = Path(task["out"]) / f"{task['data']}-{task['model']}-{task['seed']}"
    values = {**settings_of(task["data"], task["model"]), "seed": task["seed"]}
    config = build_config(model_class(task["model"]).config_class, values)
    scenario = find_scenario(task["data"], task["data_root"])
    kinds = model_class(task["model"]).needs(config)
    data = TrialData.build(scenario, **{kind: find_features(scenario, kind, "auto") for kind in kinds})
    result = folder / ("test.json" if task["test"] else "valid.json")
    if result.exists():
        return result
    started = time.perf_counter()
    if task["test"]:
        _, ranks = rank_checkpoint(folder, scenario, data, "test")
        found: dict[str, Any] = summarise(ranks, scenario.domains, "test")
    else:
        trainer = Trainer(config, data)
        epochs = list(trainer.epochs())
        trainer.save(folder)
        best = epochs[-1]["best_epoch"]
        found = {**epochs[best - 1], "epochs": len(epochs), "seconds": time.perf_counter() - started}
    write_text(result, json.dumps(found, indent=1))
    return result


def table(tasks: list[dict[str, Any]], results: list[Path]) -> str:
    """One line per system: mean and standard deviation of the MRR over seeds, in percent, per domain."""
    rows: dict[str, list[dict[str, Any]]] = {}
    for task, path in zip(tasks, results):
        rows.setdefault(task["model"], []).append(json.loads(path.read_text(encoding="utf-8")))
    lines = []
    for model, found in rows.items():
        names = [name for name in found[0] if name.startswith(("val/", "test/")) and name.count("/") == 2]
        names = [name for name in names if name.endswith("/mrr")]
        cells = []
        for name in names:
            values = [100 * one[name] for one in found]
            spread = f" ± {statistics.stdev(values):.2f}" if len(values) > 1 else ""
            cells.append(f"{name} {statistics.mean(values):.2f}{spread}")
        lines.append(f"{model} ({len(found)} seeds): " + ", ".join(cells))
    return "\n".join(lines)


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--data", required=True, help="a data set of accuracy.yaml")
    options.add_argument("--models", required=True, help="systems, separated by commas")
    options.add_argument("--seeds", default="11,12,13", help="separated by commas")
    options.add_argument("--workers", type=int, default=1, help="trials at a time")
    options.add_argument("--data-root", default="data", help="folder of the prepared scenarios")
    options.add_argument("--out", required=True, help="folder of the results")
    options.add_argument("--test", action="store_true", help="rank the test split of what was trained")
    given = options.parse_args()
    shared = {"data": given.data, "data_root": given.data_root, "out": given.out, "test": given.test}
    tasks = [
        {**shared, "model": model, "seed": int(seed)}
        for model in given.models.split(",")
        for seed in given.seeds.split(",")
    ]
    with multiprocessing.get_context("spawn").Pool(given.workers) as pool:
        results = pool.map(run, tasks, chunksize=1)
    print(table(tasks, results))


if __name__ == "__main__":
    main()
