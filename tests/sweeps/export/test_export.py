"""A sweep's best model as a folder, as a version in MLflow's registry, and behind HTTP."""

import dataclasses
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import pytest

from llmemf.__main__ import app as llmemf
from llmemf.commands.recommend import read_history
from llmemf.errors import InputError
from llmemf.export.evaluation import evaluate_export
from llmemf.export.folder import ExportedModel
from llmemf.export.recommendation import Recommendations
from sweeps.cli.main import single
from sweeps.export.chosen import choose, write_model
from sweeps.export.registry import REQUIREMENTS, example, register
from sweeps.state.sweep_state import SweepState
from sweeps.tracking.mlflow_runs import mlflow_client

HISTORY = ["i3", "i40", "i7"]


@pytest.fixture(scope="module")
def chosen(finished):
    return choose(finished.storage, None, None)


@pytest.fixture(scope="module")
def folder(chosen, tmp_path_factory):
    target = tmp_path_factory.mktemp("export") / "model"
    write_model(chosen, target)
    return target


@pytest.fixture(scope="module")
def registered(folder, chosen):
    return register(folder, chosen)


@pytest.fixture(scope="module")
def loaded(registered, finished):
    """The registered version as MLflow's own loader gives it."""
    from mlflow import pyfunc

    client = mlflow_client(finished.uri)
    version = client.get_model_version(*registered)
    before = list(sys.path)
    model = pyfunc.load_model(version.source)
    yield model
    sys.path[:] = before


@pytest.fixture(scope="module")
def web(loaded):
    """MLflow's scoring server around the model, in this process."""
    from mlflow.pyfunc import scoring_server
    from starlette.testclient import TestClient

    before = os.environ.get("_MLFLOW_IS_IN_SERVING_ENVIRONMENT")
    yield TestClient(scoring_server.init(loaded))
    if before is None:
        os.environ.pop("_MLFLOW_IS_IN_SERVING_ENVIRONMENT", None)


def invoke(command, *words):
    from typer.testing import CliRunner

    result = CliRunner().invoke(command, list(map(str, words)), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


def test_report_mlflow_folder_and_evaluation_hold_the_same_numbers(folder, finished, chosen):
    state, model = SweepState(finished.record.folder), ExportedModel.load(folder)
    record = state.records[chosen.trial.number]
    assert model.metrics == {"valid": record.metrics, "test": state.tests[0]["metrics"]}
    again = evaluate_export(model, finished.scenario, "valid")
    assert {name.replace("valid", "val", 1): value for name, value in again.items()} == record.metrics
    assert evaluate_export(model, finished.scenario, "test") == state.tests[0]["metrics"]
    client = mlflow_client(finished.uri)
    experiment = client.get_experiment_by_name("tiny")
    run = client.search_runs([experiment.experiment_id], f"tags.trial = '{record.name}'")[0]
    for name, value in record.metrics.items():
        history = {point.step: point.value for point in client.get_metric_history(run.info.run_id, name)}
        assert history[record.best_epoch] == value, name


def test_the_command_exports_registers_and_says_how_to_go_on(finished):
    words = ("--storage", finished.storage)
    printed = invoke(single("export"), *words)
    name = choose(finished.storage, None, None).name
    assert "all 40 logged numbers come out the same" in printed and "registered  llmemf-tiny, version" in printed
    target = finished.storage / "models" / name
    assert f"--model {target}" in printed and "models serve -m models:/llmemf-tiny/" in printed
    assert finished.uri in printed and '{"inputs": [' in printed
    answer = json.loads(invoke(llmemf, "recommend", "--model", target, "--history", "i3", "--domain", "film", "--json"))
    assert len(answer["items"]) == 10
    with pytest.raises(InputError, match="exists already"):
        single("export")(["--storage", str(finished.storage)], standalone_mode=False)
    shutil.rmtree(target)


def test_without_registration_mlflow_is_left_alone(finished, tmp_path):
    client = mlflow_client(finished.uri)
    before = len(client.search_model_versions())
    printed = invoke(single("export"), "s1", "--storage", finished.storage, "--out", tmp_path / "m", "--no-register")
    assert (
        "registered" not in printed and "models serve" not in printed and len(client.search_model_versions()) == before
    )


def test_changed_data_is_refused_and_nothing_is_left(chosen, tmp_path):
    from tiny import make_scenario

    make_scenario(seed=5).save(tmp_path / "data")
    with pytest.raises(InputError, match="has changed since sweep"):
        write_model(chosen, tmp_path / "m", data_root=tmp_path / "data")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_a_model_that_does_not_give_its_numbers_is_not_kept(chosen, tmp_path):
    import dataclasses

    wrong = {"valid": {name: value + 0.1 for name, value in chosen.metrics["valid"].items()}}
    with pytest.raises(InputError, match="does not reproduce the validation numbers"):
        write_model(dataclasses.replace(chosen, metrics=wrong), tmp_path / "m")
    assert not list(tmp_path.iterdir())


def test_the_version_knows_its_trial_and_holds_no_pickle(registered, finished, chosen):
    client = mlflow_client(finished.uri)
    version = client.get_model_version(*registered)
    run = client.get_run(version.run_id)
    assert run.data.tags["trial"] == chosen.trial.name and run.info.status == "FINISHED"
    assert version.tags["fingerprint"] == finished.scenario.fingerprint and "## Numbers" in version.description
    files = [path for path in Path(version.source.removeprefix("file://")).rglob("*") if path.is_file()]
    names = {path.name for path in files}
    assert {"MLmodel", "served_model.py", "best.safetensors", "README.md"} <= names
    assert not [path for path in files if path.suffix in (".pkl", ".pickle", ".pt", ".cloudpickle", ".joblib")]
    requirements = next(path for path in files if path.name == "requirements.txt").read_text()
    assert all(f"{package}==" in requirements for package in REQUIREMENTS)
    logged = next(
        model
        for model in client.search_logged_models([run.info.experiment_id])
        if model.artifact_location == version.source and model.source_run_id == version.run_id
    )
    assert logged.status == "READY" and logged.params["lr"] == str(chosen.trial.config["lr"])


def test_a_second_export_is_the_second_version(registered, folder, chosen, finished):
    name, version = register(folder, chosen, name="another")
    assert (name, version) == ("another", "1")
    assert register(folder, chosen, name="another") == ("another", "2")


def test_a_registry_that_is_away_is_one_sentence(folder, chosen, tmp_path):
    with pytest.raises(InputError, match="could not be registered at .*--no-register"):
        register(folder, chosen, tracking_uri="http://127.0.0.1:9")


def test_mlflow_and_llmemf_give_the_same_answer(loaded, folder):
    request = {"history": HISTORY, "domain": "book", "k": 5}
    expected = Recommendations.load(folder).answer(request)
    assert loaded.predict([request]) == [expected]


def post(web, body):
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    return web.post("/invocations", content=content, headers={"Content-Type": "application/json"})


def test_http_answers_each_request_of_a_call(web, folder):
    requests = [{"history": HISTORY, "domain": "book", "k": 2}, {"history": ["i3", "nobody"], "domain": "film"}]
    service = Recommendations.load(folder)
    response = post(web, {"inputs": requests})
    assert response.status_code == 200
    assert response.json() == {"predictions": [service.answer(request) for request in requests]}
    assert response.json()["predictions"][1]["unknown_items"] == ["nobody"]


@pytest.mark.parametrize(
    ("request_", "words"),
    [
        ({"history": HISTORY, "domain": "boook"}, "did you mean 'book'"),
        ({"history": HISTORY, "domain": "book", "k": 500}, "k = 500 is too large: domain 'book' has 41"),
        ({"history": HISTORY, "domain": "book", "k": "x"}, "a whole number from 1 on"),
        ({"history": "i3", "domain": "book"}, "history must be a list"),
        ({"domain": "book"}, "history is missing"),
        ("i3", "this is a text"),
    ],
)
def test_a_bad_request_spoils_no_other_one(web, folder, request_, words):
    good = {"history": HISTORY, "domain": "film"}
    response = post(web, {"inputs": [good, request_, good]})
    assert response.status_code == 200
    first, bad, last = response.json()["predictions"]
    expected = [item["id"] for item in Recommendations.load(folder).answer(good)["items"]]
    assert [item["id"] for item in first["items"]] == [item["id"] for item in last["items"]] == expected
    assert list(bad) == ["error"] and words in bad["error"]
    assert "i40" not in bad["error"]  # of the history of another user


def test_too_many_requests_at_once_are_refused_without_repeating_them(web):
    response = post(web, {"inputs": [{"history": ["i3"], "domain": "book"}] * 10_001})
    assert response.status_code == 200 and "at most 10,000" in response.json()["predictions"][0]["error"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ({"inputs": {"history": ["i3"], "domain": "book"}}, "Expected list, but got dict"),
        ({"inputs": "i3"}, "Expected list, but got str"),
        ({"history": ["i3"], "domain": "book"}, "'inputs'"),
        ({"dataframe_records": [{"history": ["i3"]}]}, "'inputs' key"),
        ([{"history": ["i3"], "domain": "book"}], "Received a list"),
        (b'{"inputs": [', "valid JSON"),
        (b"\xff\xfe", "valid JSON"),
        (b"", "valid JSON"),
    ],
)
def test_http_answers_what_is_no_list_of_requests_with_400_and_the_reason(web, body, words):
    response = post(web, body)
    assert response.status_code == 400, response.text
    assert words in response.json()["message"] and "Traceback" not in response.text


def test_http_refuses_other_contents(web):
    assert web.post("/invocations", content=b"i3", headers={"Content-Type": "text/plain"}).status_code == 415
    assert web.get("/invocations").status_code == 405


def test_the_example_of_every_model_is_answered(folder):
    model = ExportedModel.load(folder)
    assert len(Recommendations(model).answer(example(model))["items"]) == 3


def test_the_example_is_answered_where_both_domains_number_their_items_alike(folder):
    model = ExportedModel.load(folder)
    ids = [f"{part}" for part in range(model.num_x)] + [f"{part}" for part in range(model.num_items - model.num_x)]
    model = dataclasses.replace(model, items=model.items.assign(external_id=["a,b", *ids[1:]]))
    request = example(model)
    answer = Recommendations(model).answer(request)
    assert (answer["known_items"], answer["unknown_items"]) == (3, [])
    assert read_history(",".join(request["history"])) == request["history"], "as `recommend` reads it"


def free_port():
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return found.getsockname()[1]


@pytest.mark.slow
def test_mlflow_models_serve_answers_where_nothing_else_is_known(registered, finished, folder, tmp_path):
    """The real server, in an empty folder, with the version's own copy of the code."""
    port, (name, version) = free_port(), registered
    binaries = Path(sys.executable).parent
    environment = {
        **os.environ,
        "PATH": f"{binaries}{os.pathsep}{os.environ['PATH']}",
        "MLFLOW_TRACKING_URI": finished.uri,
        "OMP_NUM_THREADS": "1",
    }
    words = ["models", "serve", "-m", f"models:/{name}/{version}", "--env-manager", "local", "--port", str(port)]
    with (tmp_path / "log").open("wb") as log:
        process = subprocess.Popen(
            [str(binaries / "mlflow"), *words], cwd=tmp_path, env=environment, stdout=log, stderr=log, process_group=0
        )
    try:
        request = {"history": HISTORY, "domain": "book", "k": 4}
        answer = _ask_until_up(port, {"inputs": [request]}, process, tmp_path / "log")
        assert answer == {"predictions": [Recommendations.load(folder).answer(request)]}
        bad = _ask(port, {"inputs": [{**request, "domain": "music"}]})["predictions"][0]
        assert "unknown domain 'music'" in bad["error"]
    finally:
        os.killpg(process.pid, 15)
        process.wait(timeout=30)


def _ask(port, body):
    address = f"http://127.0.0.1:{port}/invocations"
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=30) as response:
        return json.loads(response.read())


def _ask_until_up(port, body, process, log):
    end = time.monotonic() + 120
    while True:
        try:
            return _ask(port, body)
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()) from error
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise AssertionError(log.read_text()) from None
            time.sleep(0.3)


@pytest.mark.slow
def test_nothing_beyond_the_listed_packages_is_imported_to_answer(folder):
    """The other packages of the project need not be where a version is served."""
    code = (
        "import sys, importlib\n"
        "from llmemf.models import MODELS, model_class\n"
        "for name in MODELS: model_class(name)\n"
        "from llmemf.export.recommendation import Recommendations\n"
        f"Recommendations.load({str(folder)!r}, device='cpu').answer({{'history': ['i3'], 'domain': 'book'}})\n"
        "others = {'sweeps', 'ray', 'optuna', 'mlflow', 'sklearn', 'typer', 'rich', 'PIL', 'open_clip', 'openai', 'httpx'}\n"
        "print(sorted(others & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr
