"""All that sweeps use of Optuna's private API; `tests/sweeps/search/test_optuna_private.py` says what breaks when it changes."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a parameter may have this value."""
    try:
        return distribution._contains(distribution.to_internal_repr(value))
    except (ValueError, TypeError):
        logging.getLogger(__name__).debug("%r does not fit into %r", value, distribution)
        return False
