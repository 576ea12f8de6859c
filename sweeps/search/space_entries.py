"""Read the space section of a scenario file into blocks, and tie those that a constraint touches.

key: [values]                        grid values; floats are refined between the smallest and the largest
key: {low: 0, high: 1, log: false}   no grid values, refinement only
"alpha, beta": {simplex: 0.1}        all pairs in steps of 0.1 with alpha + beta <= 1
"alpha, beta": {simplex: 0.1, given: {alpha: 0.3}}    the same with one share given
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from llmemf.errors import InputError, nearest
from sweeps.search.block import Block, list_block, with_points
from sweeps.search.constraints import Constraint
from sweeps.search.space import Space


def build_space(entries: Mapping[str, Any], constraints: Sequence[str] = ()) -> Space:
    """Read the `space` section of a scenario file.

    Args:
        entries: key -> list of values, one value, a range, or a simplex; see the module's docstring.
        constraints: comparisons over numeric settings of the space.

    Raises:
        InputError: an entry cannot be read, a constraint names an unknown setting or leaves no point.
    """
    blocks = _read_entries(entries)
    rules = [Constraint.parse(text) for text in constraints]
    known = [key for block in blocks for key in block.keys]
    for rule in rules:
        for key in rule.keys:
            if key not in known:
                raise InputError(
                    f"constraint {rule.text!r} names {key!r}, which the space does not have: {nearest(key, known)}"
                )
    simplexes = [block for block in blocks if block.kind == "simplex" and block.size > len(block.points)]
    dropped = {" + ".join(block.keys) + " <= 1": block.size - len(block.points) for block in simplexes}
    tied = blocks
    for rule in rules:
        touched = [block for block in tied if set(block.keys) & set(rule.keys)]
        tied = [block for block in tied if block not in touched] + _tie(touched, rule, dropped)
    order = {key: place for place, key in enumerate(known)}
    return Space(tuple(sorted(tied, key=lambda block: order[block.keys[0]])), dropped)


def _tie(blocks: list[Block], rule: Constraint, dropped: dict[str, int]) -> list[Block]:
    """One block out of those that a constraint touches, without the points that violate it."""
    for block in blocks:
        if not block.points:
            raise InputError(f"constraint {rule.text!r}: {block.keys[0]} is a range; give it a list of values")
    keys = tuple(key for block in blocks for key in block.keys)
    combinations = [sum(parts, ()) for parts in itertools.product(*(block.points for block in blocks))]
    kept = [point for point in combinations if rule.holds(dict(zip(keys, point)))]
    if not kept:
        raise InputError(f"constraint {rule.text!r} leaves no grid point")
    if len(kept) == len(combinations):
        return blocks
    dropped[rule.text] = len(combinations) - len(kept)
    whole = Block(keys, tuple(combinations), "choice", math.prod(block.size for block in blocks))
    return [with_points(whole, kept)]


def _read_entries(entries: Mapping[str, Any]) -> list[Block]:
    blocks: list[Block] = []
    for name, entry in entries.items():
        keys = tuple(part.strip() for part in str(name).split(","))
        if isinstance(entry, Mapping) and "simplex" in entry:
            if set(entry) - {"simplex", "given"}:
                raise InputError(
                    f"space: {name!r} = {dict(entry)}: only simplex and given are understood beside each other"
                )
            blocks += _simplex(keys, entry["simplex"], entry.get("given") or {})
            continue
        if len(keys) != 1:
            raise InputError(f"space: {name!r}: several settings belong together only as {{simplex: STEP}}")
        blocks.append(_range(keys[0], entry) if isinstance(entry, Mapping) else list_block(keys[0], entry))
    names = [key for block in blocks for key in block.keys]
    twice = sorted({key for key in names if names.count(key) > 1})
    if twice:
        raise InputError(f"space: {twice[0]!r} stands there twice")
    return blocks


def _range(key: str, entry: Mapping[str, Any]) -> Block:
    unknown = sorted(set(entry) - {"low", "high", "log"})
    if unknown or not {"low", "high"} <= set(entry):
        raise InputError(f"space: {key} = {dict(entry)}: write a list of values, or {{low: 0, high: 1, log: false}}")
    try:
        low, high = float(entry["low"]), float(entry["high"])
    except (TypeError, ValueError):
        raise InputError(f"space: {key} = {dict(entry)}: low and high must be numbers") from None
    log = entry.get("log", False)
    if not isinstance(log, bool):
        raise InputError(f"space: {key} = {dict(entry)}: log must be true or false")
    if not low < high or (log and low <= 0):
        raise InputError(
            f"space: {key} = {dict(entry)}: low must be below high" + (", and above 0 with log" if log else "")
        )
    return Block((key,), (), "float", 1, low, high, log)


def _simplex(keys: tuple[str, ...], step: Any, given: Mapping[str, Any]) -> list[Block]:
    where = f"space: {', '.join(keys)}"
    if len(keys) != 2:
        raise InputError(f"{where}: a simplex needs two settings (the third share is what they leave)")
    if isinstance(step, bool) or not isinstance(step, int | float) or not 0 < step <= 1:
        raise InputError(f"{where}: simplex = {step!r}: the step must lie above 0 and not above 1")
    count = round(1 / step)
    if abs(count * step - 1) > 1e-9:
        raise InputError(f"{where}: simplex = {step}: the step must divide 1")
    ticks = [round(index / count, 10) for index in range(count + 1)]
    columns = [_column(key, given[key]) if key in given else ticks for key in keys]
    pairs = list(itertools.product(*columns))
    kept = tuple(pair for pair in pairs if sum(pair) <= 1 + 1e-9)
    if not kept:
        raise InputError(f"{' + '.join(keys)} is above 1 for {dict(given)}: lower one of them")
    if not given:
        return [Block(keys, kept, "simplex", len(pairs))]
    fixed = [len(set(column)) == 1 for column in zip(*kept)]
    if any(fixed):
        # One share is given: the other is an ordinary setting between its smallest and largest feasible value.
        return [list_block(key, sorted(set(column))) for key, column in zip(keys, zip(*kept))]
    return [Block(keys, kept, "choice", len(pairs))]


def _column(key: str, value: Any) -> list[float]:
    values = value if isinstance(value, list) else [value]
    for number in values:
        if isinstance(number, bool) or not isinstance(number, int | float) or not 0 <= number <= 1:
            raise InputError(f"{key} = {number!r}: a share between 0 and 1 is expected")
    return [float(number) for number in values]
