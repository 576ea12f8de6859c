"""Which grid values make a trial cheaper or dearer: values that cost the same form a class.

Numbers with a point (rates, weights) cost the same at every value but 0, which leaves a part of the model out. Any other
value (widths, layers, names) is a class by itself.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from llmemf.config import TrialConfig, build_config
from llmemf.errors import InputError
from sweeps.core.plan import Plan
from sweeps.search.space import Block


@dataclass(frozen=True)
class CostClass:
    """Values of one block that cost the same.

    Attributes:
        key: what they have in common, see `class_key`.
        values: a typical member, setting -> value.
        share: their part of the block's grid points.
    """

    key: tuple[Any, ...]
    values: dict[str, Any]
    share: float


def class_key(block: Block, values: tuple[Any, ...]) -> tuple[Any, ...]:
    """What values of a block have in common with those that cost the same."""
    key = tuple(value == 0 if isinstance(value, float) else value for value in values)
    # Two shares that leave nothing to the third one leave its part of the model out as well.
    return (*key, abs(sum(values) - 1) < 1e-9) if block.kind == "simplex" else key


def cost_classes(block: Block) -> list[CostClass]:
    """Classes of a block, the most frequent first."""
    if not block.points:
        middle = (block.low + block.high) / 2
        return [CostClass((False,), {block.keys[0]: middle}, 1.0)]
    members: dict[tuple, list[tuple]] = {}
    for point in block.points:
        members.setdefault(class_key(block, point), []).append(point)
    # The middle member: where all classes are single values, as with widths, the first class is the middle of the list.
    middle = class_key(block, block.points[len(block.points) // 2])
    order = sorted(members, key=lambda key: (-len(members[key]), key != middle))
    return [
        CostClass(
            key, dict(zip(block.keys, members[key][len(members[key]) // 2])), len(members[key]) / len(block.points)
        )
        for key in order
    ]


def typical_values(plan: Plan) -> dict[str, Any]:
    """Every searched setting at a value of its most frequent class."""
    return {key: value for block in plan.space.blocks for key, value in cost_classes(block)[0].values.items()}


def build(plan: Plan, values: dict[str, Any]) -> TrialConfig | None:
    """The configuration of a trial, None where the model refuses these values beside each other."""
    try:
        return build_config(plan.config_class, {**plan.fixed, **values}, where="space")
    except InputError:
        return None
