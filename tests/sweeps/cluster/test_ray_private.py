"""What sweeps use of Ray's private API is there; each case says what breaks without it."""

import importlib
from types import SimpleNamespace

import pytest
from ray.tune.execution.tune_controller import TrialRunnerWrapper
from ray.tune.schedulers import ASHAScheduler
from ray.tune.utils.object_cache import _ObjectCache

from llmemf.features.ray_access import ASK_HEAD
from sweeps.cluster.ray_private import asha_rungs, keep_idle_workers, own_address


@pytest.mark.parametrize(
    ("module", "name", "breaks"),
    [
        ("ray._private.services", "canonicalize_bootstrap_address_or_die", "whether a cluster wants a token"),
        ("ray._raylet", "GcsClient", "whether a cluster wants a token"),
        ("ray._raylet", "InnerGcsClient.get_all_node_info", "whether a cluster wants a token"),
        ("ray._private.services", "resolve_ip_for_localhost", "whether this machine is a node of the cluster"),
        ("ray._private.state", "state.get_cluster_config", "how far a cluster grows by itself"),
        ("ray.scripts.scripts", "cli.commands", "the node of a login machine"),
    ],
)
def test_the_private_attributes_are_there(module, name, breaks):
    found = importlib.import_module(module)
    for part in name.split("."):
        assert hasattr(found, part), f"{module}.{name} is gone: {breaks} needs another way"
        found = getattr(found, part)


def test_the_rungs_of_asha():
    scheduler = ASHAScheduler(time_attr="epoch", max_t=10, grace_period=2, reduction_factor=2, brackets=1)
    found = asha_rungs(scheduler)
    assert [int(milestone) for milestone, _ in found] == [8, 4, 2], "a resumed sweep could not fill its rungs"
    assert all(recorded == {} for _, recorded in found)


def test_processes_without_a_trial_are_kept():
    cache = _ObjectCache()
    tune = SimpleNamespace(_actor_cache=cache, get_trials=lambda: [SimpleNamespace(placement_group_factory="one CPU")])
    controller = TrialRunnerWrapper(tune, None)
    assert cache.cache_object("one CPU", "a") and not cache.cache_object("one CPU", "b"), "Tune keeps one by itself"
    keep_idle_workers(controller, 2)
    assert cache.cache_object("one CPU", "b"), "the confirmation would start processes anew"
    assert list(cache.flush_cached_objects()) == []
    keep_idle_workers(controller, -2)
    assert list(cache.flush_cached_objects()) == ["a", "b"], "they would hold their places to the end"


def test_the_program_that_asks_the_head_is_python():
    compile(ASK_HEAD, "ask", "exec")


def test_addresses_of_other_machines_stay():
    assert own_address("192.0.2.7") == "192.0.2.7" and own_address("127.0.0.1") != "", "no name is looked up"
