"""Constraints between settings, written as text (`alpha + beta <= 1`) and evaluated without `eval`."""

from __future__ import annotations

import ast
import itertools
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from llmemf.errors import InputError

TOLERANCE = 1e-9
OPERATORS: dict[type[ast.AST], Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.UAdd: operator.pos,
    ast.USub: operator.neg,
}
COMPARISONS = {
    ast.LtE: lambda left, right: left <= right + TOLERANCE,
    ast.GtE: lambda left, right: left >= right - TOLERANCE,
    ast.Lt: lambda left, right: left < right - TOLERANCE,
    ast.Gt: lambda left, right: left > right + TOLERANCE,
    ast.Eq: lambda left, right: abs(left - right) <= TOLERANCE,
    ast.NotEq: lambda left, right: abs(left - right) > TOLERANCE,
}
ALLOWED = (ast.Compare, ast.BinOp, ast.UnaryOp, ast.Name, ast.Load, ast.Constant, *OPERATORS, *COMPARISONS)


@dataclass(frozen=True)
class Constraint:
    """A comparison over settings, for example `alpha + beta <= 1`.

    Comparisons forgive rounding up to 1e-9, so that 0.7 + 0.2 + 0.1 <= 1 holds.

    Attributes:
        text: as the user wrote it.
        keys: the settings that it names, sorted.
    """

    text: str
    keys: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Constraint:
        """Read a comparison made of setting names, numbers, + - * / and parentheses.

        Raises:
            InputError: anything else stands there.
        """
        tree = _tree(text)
        if not isinstance(tree, ast.Compare):
            raise InputError(f"constraint {text!r}: write a comparison, for example alpha + beta <= 1")
        inside = [node for node in ast.walk(tree) if node is not tree]
        numbers = [type(node.value) for node in inside if isinstance(node, ast.Constant)]
        nested = any(isinstance(node, ast.Compare) for node in inside)
        if nested or not {*numbers} <= {int, float} or not all(isinstance(node, ALLOWED) for node in inside):
            raise InputError(f"constraint {text!r}: only names, numbers, + - * / ( ) and one comparison are understood")
        keys = sorted({node.id for node in ast.walk(tree) if isinstance(node, ast.Name)})
        if not keys:
            raise InputError(f"constraint {text!r} names no setting")
        return cls(text, tuple(keys))

    def holds(self, values: Mapping[str, Any]) -> bool:
        """Whether the comparison is true for these settings.

        Raises:
            InputError: a setting that it names is not a number, or it divides by zero.
        """
        for key in self.keys:
            if isinstance(values[key], bool) or not isinstance(values[key], int | float):
                raise InputError(f"constraint {self.text!r}: {key} = {values[key]!r} is not a number")
        comparison = _tree(self.text)
        assert isinstance(comparison, ast.Compare)
        try:
            sides = [_number(node, values) for node in (comparison.left, *comparison.comparators)]
        except ZeroDivisionError:
            raise InputError(f"constraint {self.text!r} divides by zero") from None
        return all(COMPARISONS[type(op)](*pair) for op, pair in zip(comparison.ops, itertools.pairwise(sides)))


def _tree(text: str) -> ast.expr:
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError):
        raise InputError(f"constraint {text!r} cannot be read: write, for example, alpha + beta <= 1") from None


def _number(node: ast.expr, values: Mapping[str, Any]) -> Any:
    match node:
        case ast.Name(name):
            return values[name]
        case ast.UnaryOp(sign, operand):
            return OPERATORS[type(sign)](_number(operand, values))
        case ast.BinOp(left, sign, right):
            return OPERATORS[type(sign)](_number(left, values), _number(right, values))
    assert isinstance(node, ast.Constant)
    return node.value
