from types import SimpleNamespace

import pytest
import ray

from llmemf.errors import InputError
from sweeps.cluster import ray_session


def test_ray_that_does_not_come_up_is_one_sentence_with_a_remedy(monkeypatch):
    """Ray raises a bare Exception with advice for its own developers."""
    monkeypatch.setenv("PYTHONPATH", "")
    monkeypatch.setattr(ray_session, "remove_stale", lambda folder: None)
    monkeypatch.setattr(ray_session, "slots", lambda *args: 1)

    def fail(**options):
        raise Exception("The current node timed out during startup. This could happen because of a GCS.")

    monkeypatch.setattr(ray, "init", fail)
    with pytest.raises(InputError, match=r"\(The current node timed out during startup\).*again"):
        ray_session.start_ray(SimpleNamespace(ray_address=None), 0)
