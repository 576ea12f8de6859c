"""A server from one command: which folder, plain words where it cannot be, a clean end."""

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

import sweeps
from llmemf.errors import InputError
from llmemf.export.recommendation import Recommendations
from sweeps.cli import serve
from sweeps.cli.main import single
from sweeps.core.console import CommandConsole
from sweeps.export import chosen as exported
from sweeps.export.chosen import choose
from sweeps.tracking import pages

CHECKOUT = Path(sweeps.__file__).parent.parent
REQUEST = {"history": ["i3", "i40"], "domain": "book", "k": 2}


def run(*words):
    single("serve")(list(map(str, words)), standalone_mode=False)


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.fixture
def target(finished):
    """Where the best trial of the sweep is exported to; not there before and after."""
    folder = finished.storage / "models" / choose(finished.storage, "s1", None).name
    shutil.rmtree(folder, ignore_errors=True)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


def test_a_sweep_is_exported_once(finished, target, monkeypatch):
    assert serve._of_sweep("s1", finished.storage, CommandConsole()) == target
    assert Recommendations.load(target).answer(REQUEST)["items"]
    monkeypatch.setattr(exported, "write_model", None)
    assert serve._of_sweep("s1", finished.storage, CommandConsole()) == target


def test_what_is_neither_a_folder_nor_a_sweep_is_named_with_the_remedy(tmp_path):
    with pytest.raises(InputError, match=rf"'nothing' .*{tmp_path}.* export"):
        run("nothing", "--storage", tmp_path, "--port", free_port())


def test_an_address_that_cannot_be_listened_at_is_named(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(InputError, match=rf"--port {port} \("):
            run("nothing", "--port", port)
    with pytest.raises(InputError, match=r"--host 192\.0\.2\.1"):
        run("nothing", "--host", "192.0.2.1", "--port", port)


def test_of_a_server_that_ends_before_its_children_nothing_is_left(monkeypatch):
    monkeypatch.setattr(pages, "STOP_SECONDS", 0.1)
    process = subprocess.Popen(
        ["bash", "-c", "(trap '' TERM; echo up; while true; do sleep 0.02; done) & exec sleep 60"],
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    assert process.stdout.readline() == "up\n"
    pages._end(process)
    # The other end of the pipe is closed once nobody runs who could write to it.
    assert process.stdout.read() == "" and process.poll() is not None


@pytest.mark.slow
def test_it_answers_until_it_is_interrupted_and_leaves_nothing_behind(finished, target, tmp_path):
    port = free_port()
    words = ["-m", "sweeps", "serve", "s1", "--storage", str(finished.storage), "--port", str(port)]
    process = subprocess.Popen(
        [sys.executable, *words],
        cwd=tmp_path,
        env={**os.environ, "OMP_NUM_THREADS": "1", "TMPDIR": str(tmp_path), "PYTHONPATH": str(CHECKOUT)},
        stdout=subprocess.PIPE,
        text=True,
        process_group=0,
    )
    try:
        lines = []
        while "curl" not in "".join(lines[-1:]):
            lines.append(process.stdout.readline())
            assert lines[-1], "".join(lines)
        address = f"http://127.0.0.1:{port}/invocations"
        good, bad = _ask(address, json.dumps({"inputs": [REQUEST, {**REQUEST, "domain": "music"}]}))
        assert good == Recommendations.load(target).answer(REQUEST) and list(bad) == ["error"]
        shown = shlex.split(lines[-1].partition("curl")[2])
        assert address in shown and len(_ask(address, shown[-1])[0]["items"]) == 3
        os.kill(process.pid, signal.SIGINT)
        assert process.stdout.read().strip() == "stopped" and process.wait(timeout=30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    pages.check_port(port)
    assert not list(tmp_path.iterdir())


def _ask(address, body):
    request = urllib.request.Request(address, body.encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())["predictions"]
