"""Studies: one row per value of a setting (one per combination of several), everything else as it is, one table.

The shared configuration is that of a sweep's best trial, or a system's defaults with the scenario's shared settings.
"""

from __future__ import annotations

import datetime
import itertools
import re
from typing import Any

from llmemf import text_format
from llmemf.config import build_config, parse_assignment
from llmemf.errors import InputError, nearest
from llmemf.models import MODELS, model_class
from sweeps.core.settings import as_values, drop_absent_modalities
from sweeps.groups.group import Group, Row
from sweeps.groups.new_group import GroupOptions, assigned, named_sweep, new_group, of_best_trial, of_scenario
from sweeps.state.sweep_record import SweepSettings


def plan(options: GroupOptions, now: datetime.datetime) -> Group:
    """A new study.

    Raises:
        InputError: any mistake in options or scenario file, in one sentence.
    """
    if options.from_sweep is not None:
        record = named_sweep(options.from_sweep, options.storage.resolve(), options.scenario)
        model = record.model
        if options.model not in (None, model):
            raise InputError(f"--model {options.model}: sweep {record.name!r} is of {model}: leave --model out")
        shared = of_best_trial(record, options)
    else:
        _, shared = of_scenario(options)
        model = options.model or "llm_emf"
        if model not in MODELS:
            raise InputError(f"--model: unknown system {model!r}: {nearest(model, MODELS)}")
        config_class = model_class(model).config_class
        fixed = {key: value for key, value in shared["fixed"].items() if key in config_class.model_fields}
        shared["fixed"] = fixed | assigned(config_class, options)
        shared["origin"] = f"the defaults of {model} with what all systems share on {shared['scenario']}"
    settings = SweepSettings(model=model, fixed=shared["fixed"])
    varied = dict(parse_assignment(text, flag="--vary") for text in options.vary or [])
    notices = drop_absent_modalities(settings, varied, options.root / shared["scenario"])
    rows = _rows(model, settings.fixed, options.vary or [])
    fields = shared | {"fixed": settings.fixed, "rows": rows, "notices": notices}
    return new_group(options, now, kind="study", **fields)


def _rows(model: str, fixed: dict[str, Any], vary: list[str]) -> list[Row]:
    """A row per combination of the values of `--vary KEY=VALUE,VALUE`, the last key changing fastest."""
    config_class = model_class(model).config_class
    grid: dict[str, list[Any]] = {}
    for text in vary:
        key, value = parse_assignment(text, flag="--vary")
        if key not in config_class.model_fields or key in ("model", "seed"):
            valid = sorted(set(config_class.model_fields) - {"model", "seed"})
            raise InputError(f"--vary {text}: {key!r} is no setting that can be varied: {nearest(key, valid)}")
        if key in grid:
            raise InputError(f"--vary {text}: {key} is varied already")
        grid[key] = as_values(config_class, key, value, where="--vary")
    if not grid:
        raise InputError("--vary is missing: KEY=VALUE,VALUE,...")
    rows: dict[str, Row] = {}
    for values in itertools.product(*grid.values()):
        overrides = dict(zip(grid, values, strict=True))
        title = text_format.settings(overrides)
        name = re.sub(r"[^A-Za-z0-9._-]+", "-", title)
        if name in rows:
            raise InputError(f"--vary: {title} is given twice")
        rows[name] = Row(name=name, title=title, model=model, overrides=overrides, varied=overrides)
        try:
            build_config(config_class, {"model": model, **fixed, **overrides}, where=title)
        except InputError as error:
            rows[name].problem = str(error)
    if all(row.problem for row in rows.values()):
        raise InputError(next(iter(rows.values())).problem)
    return list(rows.values())
