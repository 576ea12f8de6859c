import pytest

from llmemf.errors import InputError
from sweeps.tracking.addresses import absolute_uri


def test_tracking_uris_are_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri(None, tmp_path / "mlruns") == f"sqlite:///{tmp_path}/mlruns/mlflow.db"
    assert absolute_uri("sqlite:///my.db", tmp_path) == f"sqlite:///{tmp_path}/my.db"
    assert absolute_uri("sqlite:////abs/my.db", tmp_path) == "sqlite:////abs/my.db"
    assert absolute_uri("http://host:5000", tmp_path) == "http://host:5000"
    monkeypatch.setenv("HOME", "/home/somebody")
    assert absolute_uri("sqlite:///~/my.db", tmp_path) == "sqlite:////home/somebody/my.db"


@pytest.mark.parametrize("uri", ["mlruns", "file:///mlruns", "http://host:99999", "http://", "http://[::1"])
def test_what_is_no_address_is_named(tmp_path, uri):
    with pytest.raises(InputError) as told:
        absolute_uri(uri, tmp_path)
    assert f"--tracking-uri {uri}:" in str(told.value)
