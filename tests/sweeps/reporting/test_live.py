"""The page that follows a running sweep, and how a sweep stands, as programs read it."""

import http.client
import json
import os
import threading

import pytest
from report_fakes import make_sweep, rising, trial

from llmemf.errors import InputError
from sweeps.reporting import live
from sweeps.reporting.conclusions import WAITS
from sweeps.reporting.gather import gather
from sweeps.reporting.standing import standing, with_trials
from sweeps.reporting.tracked import Tracked

HALF_DONE = [trial(rising(0.05)), trial(rising(0.04)[:2], "running"), trial([], "pending")]


@pytest.fixture
def running(tmp_path):
    """A sweep that this process seems to run."""
    return make_sweep(tmp_path, HALF_DONE, status="running", opened={"pid": os.getpid()}, trials=4)


@pytest.fixture
def served(running, monkeypatch):
    monkeypatch.setattr(live, "find_runs", lambda record: Tracked(problem="there is no database"))
    with live.make_server(running, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield server.server_port
        server.shutdown()
        thread.join()


def ask(port, path="/", method="GET", **headers):
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request(method, path, headers=headers)
    answer = connection.getresponse()
    found = answer.status, dict(answer.getheaders()), answer.read().decode()
    connection.close()
    return found


def test_a_page_is_sent_again_only_when_the_sweep_has_moved(served, running):
    status, headers, page = ask(served)
    assert status == 200 and f'data-live="{live.SECONDS}"' in page and "t01" in page and WAITS in page
    again = {"If-None-Match": headers["ETag"]}
    assert ask(served, **again)[::2] == (304, "")
    log = running.folder / "journal.jsonl"
    event = {"event": "failed", "trial": 2, "kind": "error", "error": "NonFiniteLoss: x", "seconds": 20.0}
    log.write_text(log.read_text() + json.dumps({**event, "time": 1_800_000_900_000}) + "\n")
    status, _, page = ask(served, **again)
    assert status == 200 and "NonFiniteLoss" in page


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        ({"path": "/journal.jsonl"}, 404),
        ({"Host": "evil.example"}, 403),
        ({"method": "POST"}, 501),
        ({"method": "HEAD"}, 200),
    ],
)
def test_it_gives_the_page_to_this_machine_and_nothing_else(served, request_, status):
    assert ask(served, **request_)[0] == status


def test_time_left_foresees_the_repeats_of_the_best_trials(tmp_path):
    opened = {"pid": os.getpid(), "repeats": 2}
    found = standing(gather(make_sweep(tmp_path, HALF_DONE, status="running", opened=opened, trials=4)))
    assert found["seconds_left"] == pytest.approx((8 + 22 + 22 + 2 * 22) / 2)


def test_a_port_that_is_taken_is_named(served, running):
    with pytest.raises(InputError, match=f"port {served} .*--port"):
        live.make_server(running, "127.0.0.1", served)


def test_a_damaged_log_is_told_and_the_server_stays(served, running):
    log = running.folder / "journal.jsonl"
    kept = log.read_text()
    log.write_text("nonsense\n" + kept)
    assert ask(served)[0] == 503
    log.write_text(kept)
    assert ask(served)[0] == 200


def test_how_a_running_sweep_stands(running):
    found = standing(gather(running))
    assert (found["state"], found["planned"], found["trials"]) == (
        "running", 4, {"completed": 1, "running": 1, "pending": 1},
    )  # fmt: skip
    assert found["best"]["trial"] == "t01" and found["best"]["objective"] == pytest.approx(0.05 * (1 - 0.5**6))
    # One trial took 22 s, one has run for 14 s, two at once: t02 has 8 s to go, two more trials 22 s each.
    assert found["seconds_left"] == pytest.approx((8 + 22 + 22) / 2)
    whole = with_trials(gather(running))
    assert [row["trial"] for row in whole["leaderboard"]] == ["t01", "t02", "t03"]
    assert json.loads(json.dumps(whole)) == whole
