"""How a Ray is reached: with which token, and what a refusal means; for the encoding of features and for sweeps alike."""

import os
import socket

import pytest
import ray

from llmemf.errors import InputError
from llmemf.features import cluster, ray_access


def forget(monkeypatch):
    """The environment of a shell in which nobody spoke of tokens."""
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


def leave_token(home):
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("t" * 64)


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home directory without a token."""
    forget(monkeypatch)
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_local_ray_has_a_token_of_its_own(home, monkeypatch):
    tokens = []
    for _ in range(2):
        forget(monkeypatch)
        ray_access.set_token(None)
        assert os.environ["RAY_AUTH_MODE"] == "token"
        tokens.append(os.environ["RAY_AUTH_TOKEN"])
    assert len(set(tokens)) == 2 and len(tokens[0]) == 64
    assert not list(home.iterdir())


@pytest.mark.parametrize(("asks", "mode"), [(True, "token"), (False, "disabled")])
def test_a_token_goes_to_clusters_that_ask_for_it(home, monkeypatch, asks, mode):
    monkeypatch.setattr(ray_access, "asks_for_token", lambda address: asks)
    ray_access.set_token("head:6379")
    assert "RAY_AUTH_MODE" not in os.environ, "there is no token to send"
    leave_token(home)
    ray_access.set_token("head:6379")
    assert os.environ["RAY_AUTH_MODE"] == mode
    monkeypatch.setenv("RAY_AUTH_MODE", "as the user says")
    ray_access.set_token("head:6379")
    assert os.environ["RAY_AUTH_MODE"] == "as the user says"


def test_refusals_in_plain_words():
    assert "copy ~/.ray/auth_token" in str(ray_access.refused("h:1", "RPC error: InvalidAuthToken: missing"))
    assert str(ray_access.refused("h:1", "ConnectionError:\n no")).endswith("cannot be joined: ConnectionError: no")


def test_features_are_encoded_on_a_cluster_that_asks_for_no_token(home, monkeypatch):
    """A sender of tokens and a cluster without one connect, and nothing starts there."""
    leave_token(home)
    monkeypatch.setattr(ray_access, "asks_for_token", lambda address: False)

    def away(**options):
        raise ConnectionError("away")

    monkeypatch.setattr(ray, "init", away)
    with (
        socket.create_server(("127.0.0.1", 0)) as head,
        pytest.raises(InputError, match="away"),
        cluster.connected(f"127.0.0.1:{head.getsockname()[1]}"),
    ):
        pytest.fail("it connected")
    assert os.environ["RAY_AUTH_MODE"] == "disabled"
