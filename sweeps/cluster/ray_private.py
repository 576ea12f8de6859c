"""All that sweeps use of Ray's private API beside the program of `llmemf.features.ray_access`.

`tests/sweeps/cluster/test_ray_private.py` says what breaks when Ray changes it.
"""

from __future__ import annotations

from typing import Any


def asha_rungs(scheduler: Any) -> list[tuple[float, dict[str, float]]]:
    """Milestone (epochs) and recorded objective per trial of an ASHA scheduler with one bracket, the highest rung first."""
    return scheduler._brackets[0]._rungs


def keep_idle_workers(controller: Any, more: int) -> None:
    """Let Tune keep `more` (or fewer, if negative) processes without a trial; by itself it keeps one.

    Args:
        controller: what Tune hands to a scheduler; it has a trial.
    """
    tune = controller._tune_controller
    tune._actor_cache.increase_max(tune.get_trials()[-1].placement_group_factory, more)


def node_groups() -> list[Any]:
    """The kinds of nodes that the connected cluster may start (`name`, `resources`, `max_count`); empty where it tells none."""
    from ray._private.state import state

    config = state.get_cluster_config()
    return [] if config is None else list(config.node_group_configs)


def own_address(address: str) -> str:
    """The address of this machine as Ray's nodes give it where `address` is a local one, otherwise `address`."""
    from ray._private.services import resolve_ip_for_localhost

    return resolve_ip_for_localhost(address)


def run_node(options: list[str]) -> None:
    """`ray start` in this process."""
    from ray.scripts.scripts import cli

    cli(["start", *options], standalone_mode=False)
