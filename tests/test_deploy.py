"""The cluster files are what Ray, MLflow and this project's own commands accept, and they agree with each other.

What no test here can know: whether a cloud has the image, the machines and the mounts.
"""

from __future__ import annotations

import json
import re
import shlex
import shutil
import subprocess
import tomllib
from importlib.metadata import requires, version
from pathlib import Path

import click
import pytest
import typer.main
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parent.parent
RAY_UP = ["ray_cluster.yaml", "deploy/on_premise.yaml"]
KUBERAY = "deploy/kuberay.yaml"
SERVED = "deploy/Dockerfile.serve"
FILES = [*RAY_UP, KUBERAY, "deploy/Dockerfile", SERVED]
PAGES = ["README.md", "docs/cluster.md"]
IMAGE = f"rayproject/ray:{version('ray')}-py311-gpu"


def read(name):
    return (ROOT / name).read_text()


def load(name):
    return yaml.safe_load(read(name))


def commands_of(config):
    return [line for key, lines in config.items() if key.endswith("_commands") for line in lines]


def gcp_config():
    """`ray_cluster.yaml` with its commented lines for GCP in place."""
    lines = [line.removeprefix("#gcp ") for line in read("ray_cluster.yaml").splitlines() if line.startswith("#gcp ")]
    return {**load("ray_cluster.yaml"), **yaml.safe_load("\n".join(lines))}


@pytest.mark.parametrize("name", [*RAY_UP, "gcp"])
def test_ray_up_accepts_the_file(name):
    from ray.autoscaler._private.util import prepare_config, validate_config

    config = prepare_config(gcp_config() if name == "gcp" else load(name))
    validate_config(config)
    types = config["available_node_types"]
    workers = {kind: (node["min_workers"], node["max_workers"]) for kind, node in types.items() if kind != "head"}
    assert workers == ({"local.cluster.node": (2, 2)} if "on_premise" in name else {"gpu_spot": (0, 8)})


def test_rays_schema_refuses_what_is_wrong():
    """The check above can fail: a key that does not exist, a fraction of a GPU, a wrong type."""
    import jsonschema
    from ray.autoscaler._private.util import prepare_config, validate_config

    for change in ({"max_workerz": 1}, {"max_workers": "many"}, {"docker": {"imag": "x"}}):
        with pytest.raises(jsonschema.ValidationError):
            validate_config(prepare_config({**load("ray_cluster.yaml"), **change}))


@pytest.mark.parametrize("config", [load("ray_cluster.yaml"), gcp_config()], ids=["aws", "gcp"])
def test_the_head_runs_no_trial_and_workers_are_spot(config):
    head, worker = config["available_node_types"]["head"], config["available_node_types"]["gpu_spot"]
    assert head["resources"] == {"CPU": 0, "GPU": 0}
    spot = {"aws": worker["node_config"].get("InstanceMarketOptions") == {"MarketType": "spot"},
            "gcp": {"preemptible": True} in worker["node_config"].get("scheduling", [])}  # fmt: skip
    assert spot[config["provider"]["type"]]
    assert "InstanceMarketOptions" not in head["node_config"] and "scheduling" not in head["node_config"]


def test_every_node_has_the_ray_and_python_of_the_project():
    project = tomllib.loads(read("pyproject.toml"))["project"]
    assert project["requires-python"] == ">=3.11"
    ray = next(Requirement(line) for line in project["dependencies"] if line.startswith("ray["))
    assert ray.specifier.contains(version("ray"))
    assert load("ray_cluster.yaml")["docker"]["image"] == IMAGE
    assert f"\nFROM {IMAGE}\n" in read("deploy/Dockerfile")
    assert load(KUBERAY)["spec"]["rayClusterSpec"]["rayVersion"] == version("ray")
    pinned = {found for name in FILES for found in re.findall(r"ray(?:\[default\])?==([\d.]+)", read(name))}
    assert pinned == {version("ray")}
    assert any(Requirement(line).name == "aiohttp_cors" for line in requires("ray")), "the job client is an extra"


def ray_command(words):
    """Ray's own parser for the words after `ray`; the command and its parsed options."""
    from ray.scripts.scripts import cli

    command, context = cli, click.Context(cli, info_name="ray")
    while isinstance(command, click.Group):
        found = command.get_command(context, words[0])
        assert found is not None, f"ray {words[0]} does not exist"
        command, words = found, words[1:]
    return command, command.make_context(command.name, list(words), parent=context, resilient_parsing=False).params


def calls(lines, program):
    """The words after a program in shell lines, each up to the end of its command."""
    found = []
    for line in lines:
        lexer = shlex.shlex(line.replace("$RAY_HEAD_IP", "10.0.0.1"), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        command: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) - set("();<>|&"):
                command.append(word)
                continue
            while command and ("=" in command[0] or command[0] == "nohup"):
                del command[0]
            if command and Path(command[0]).name == program:
                found.append(command[1:])
            command = []
    return found


@pytest.mark.parametrize("name", RAY_UP)
def test_ray_accepts_every_ray_command(name):
    starts = [words for words in calls(commands_of(load(name)), "ray") if words and words[0] == "start"]
    assert len(starts) == 2
    parsed = [ray_command(words)[1] for words in starts]
    head = next(options for options in parsed if options["head"])
    worker = next(options for options in parsed if not options["head"])
    assert head["dashboard_host"] == "127.0.0.1", "whoever reaches the dashboard runs any code"
    assert head["autoscaling_config"] == "~/ray_bootstrap_config.yaml"
    assert int(head["port"]) == 6379 and worker["address"] == "10.0.0.1:6379"
    assert head["disable_usage_stats"] and worker["disable_usage_stats"]
    assert all("RAY_AUTH_MODE=token" in line for line in commands_of(load(name)) if "ray start" in line)
    assert "~/.ray/auth_token" in load(name)["file_mounts"]


def test_the_parser_of_the_test_above_knows_a_wrong_flag():
    with pytest.raises(click.NoSuchOption):
        ray_command(["start", "--head", "--dashbord-host=127.0.0.1"])


@pytest.mark.slow
@pytest.mark.parametrize("name", RAY_UP)
def test_mlflow_accepts_its_command_and_keeps_to_the_head(name):
    from mlflow.cli import cli

    (words,) = [words for words in calls(commands_of(load(name)), "mlflow") if words and words[0] == "server"]
    server = cli.get_command(click.Context(cli), "server")
    options = server.make_context("server", words[1:]).params
    assert (options["host"], options["port"]) == ("127.0.0.1", 5000)
    store = options["backend_store_uri"].replace("$HOME", "/home/me")
    assert store.startswith("sqlite:////") and "/mnt/shared" not in store, "SQLite does not belong on a network disk"
    assert options["artifacts_destination"].startswith("/mnt/shared/mlruns/")


@pytest.mark.parametrize("name", RAY_UP)
def test_every_shell_line_is_shell(name):
    for line in commands_of(load(name)):
        checked = subprocess.run(["bash", "-n", "-c", line], capture_output=True, text=True, check=False)
        # A placeholder in angle brackets reads as a redirection; the rest must parse.
        assert checked.returncode == 0, f"{line}: {checked.stderr}"


def test_the_head_finds_the_packages_that_the_project_names(tmp_path):
    """The line that lists the dependencies, run on this project's file."""
    (line,) = [line for line in load("ray_cluster.yaml")["head_setup_commands"] if "tomllib" in line]
    line = line.replace("/home/ray/llm-emf/", f"{ROOT}/").replace("/mnt/shared", str(tmp_path))
    subprocess.run(["bash", "-c", line], check=True, timeout=30)
    listed = (tmp_path / "requirements.txt").read_text().splitlines()
    assert listed == tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]


def sweep_lines():
    """Every sweep on a cluster that the files name: (file, words)."""
    found = [(KUBERAY, shlex.split(load(KUBERAY)["spec"]["entrypoint"]))]
    for name in PAGES:
        lines = [line for line in read(name).splitlines() if "ray job submit" in line and not line.startswith("#")]
        found += [(name, shlex.split(line)) for line in lines if "grid.py" in line]
    return found


def test_the_sweeps_are_commands_that_exist():
    from sweeps.cli.main import single

    lines = sweep_lines()
    assert KUBERAY in dict(lines)
    command = typer.main.get_command(single("sweep"))
    for name, words in lines:
        place = words.index("sweeps/grid.py")
        options = command.make_context("grid", words[place + 1 :]).params
        assert words[place - 1] == "python", name
        assert (str(options["storage"]), str(options["data_root"])) == ("/mnt/shared/mlruns", "/mnt/shared/data"), name
        assert options["ray_address"] == "auto" and options["gpus_per_trial"] == 1, "the head has no GPU to count"
        assert options["scenario"] == "movie_book" and options["name"] == "movie-book-1"
        assert "--continue" in words
        if "submit" in words:
            options = ray_job_options(words)
            assert options["address"] == "http://127.0.0.1:8265" and options["working_dir"] == "."


def ray_job_options(words):
    """The options of `ray job submit`, by Ray's own parser."""
    from ray.dashboard.modules.job.cli import submit

    return submit.make_context("submit", words[words.index("submit") + 1 :]).params


@pytest.mark.parametrize("name", PAGES)
def test_the_other_ray_commands_exist(name):
    blocks = re.findall(r"```bash\n(.*?)```", read(name), flags=re.DOTALL)
    lines = [line.split(" #")[0] for block in blocks for line in block.splitlines() if line.startswith("ray ")]
    for words in calls(lines, "ray"):
        _, options = ray_command(words)
        assert Path(options["cluster_config_file"]).name in [Path(file).name for file in RAY_UP]


def test_kuberay_has_the_documented_shape():
    job = load(KUBERAY)
    assert (job["apiVersion"], job["kind"]) == ("ray.io/v1", "RayJob")
    spec = job["spec"]
    assert set(spec) <= {"entrypoint", "backoffLimit", "shutdownAfterJobFinishes", "ttlSecondsAfterFinished",
                         "rayClusterSpec", "runtimeEnvYAML", "submissionMode", "activeDeadlineSeconds"}  # fmt: skip
    assert spec["shutdownAfterJobFinishes"] is True and spec["backoffLimit"] >= 1
    cluster = spec["rayClusterSpec"]
    assert set(cluster) <= {"rayVersion", "enableInTreeAutoscaling", "autoscalerOptions", "headGroupSpec",
                            "workerGroupSpecs"}  # fmt: skip
    assert cluster["enableInTreeAutoscaling"] is True and cluster["autoscalerOptions"]["version"] == "v2"
    head, (worker,) = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    assert set(worker) <= {"groupName", "replicas", "minReplicas", "maxReplicas", "rayStartParams", "template"}
    assert (worker["minReplicas"], worker["maxReplicas"]) == (0, 8)
    for group in (head, worker):
        params = [
            f"--{key}" if value == "true" else f"--{key}={value}" for key, value in group["rayStartParams"].items()
        ]
        assert all(isinstance(value, str) for value in group["rayStartParams"].values()), "KubeRay wants strings"
        ray_command(["start", *params])
        pod = group["template"]["spec"]
        (container,) = pod["containers"]
        assert container["image"] == "<REGISTRY>/llm-emf:1"
        (mount,) = container["volumeMounts"]
        assert mount["mountPath"] == "/mnt/shared" and mount["name"] == pod["volumes"][0]["name"]
    assert head["rayStartParams"]["num-cpus"] == head["rayStartParams"]["num-gpus"] == "0"
    gpus = int(worker["template"]["spec"]["containers"][0]["resources"]["limits"]["nvidia.com/gpu"])
    at_once = int(re.search(r"--concurrency (\d+)", spec["entrypoint"])[1])
    assert at_once == worker["maxReplicas"] * gpus


@pytest.mark.parametrize("name", FILES)
def test_every_placeholder_is_listed_at_the_top(name):
    text = read(name)
    head = text[: re.search(r"^[^#\n]", text, flags=re.MULTILINE).start()]
    rest = "\n".join(line for line in text[len(head) :].splitlines() if not line.startswith("#"))
    used, listed = (set(re.findall(r"<[A-Z_0-9]+>", part)) for part in (rest, head))
    assert used <= listed and (used or "Dockerfile" in name)


def test_the_image_that_serves_has_what_answering_needs_and_starts_the_server():
    from sweeps.cli.export import SERVE_PORT
    from sweeps.cli.main import app
    from sweeps.export.registry import REQUIREMENTS

    lines = read(SERVED).replace("\\\n", " ").splitlines()
    steps = [line.split(maxsplit=1) for line in lines if line and not line.startswith("#")]
    words = [word for step, rest in steps if step == "RUN" for word in shlex.split(rest)]
    installed = [
        Requirement(word) for word in words if word[0].isalpha() and not word.startswith(("pip", "install", "http"))
    ]
    project = [Requirement(line) for line in tomllib.loads(read("pyproject.toml"))["project"]["dependencies"]]
    own = {canonicalize_name(found.name): found.specifier for found in project}
    assert {canonicalize_name(found.name): found.specifier for found in installed}.items() <= own.items()
    needed = {*map(canonicalize_name, REQUIREMENTS), "mlflow", "typer", "rich"}
    assert {canonicalize_name(found.name) for found in installed} == needed
    copied = [name for step, rest in steps if step == "COPY" for name in rest.split()[:-1]]
    assert {"llmemf", "sweeps", "pyproject.toml"} <= set(copied) and all((ROOT / name).exists() for name in copied)
    (command,) = [json.loads(rest) for step, rest in steps if step == "CMD"]
    program, name, *options = command
    assert (program, name) == ("llmemf", "serve")
    parsed = typer.main.get_command(app).commands[name].make_context(name, options).params
    assert (parsed["model"], parsed["host"], parsed["port"]) == ("/model", "0.0.0.0", SERVE_PORT)
    assert ["EXPOSE", str(SERVE_PORT)] in steps


@pytest.fixture
def checkout(tmp_path):
    """A copy of what git would have of this checkout, with all that a user may have beside it."""
    copy = tmp_path / "checkout"
    for name in ("llmemf", "sweeps", "tests", "deploy", "docs"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".gitignore", ".rayignore", "pyproject.toml", "README.md", "ray_cluster.yaml"):
        shutil.copy(ROOT / name, copy / name)
    large = [
        "data/movie_book/manifest.json", "mlruns/x.pt", "mlruns/mlflow.db", "results/table.csv", "weights/clip.bin",
        "trials/best.safetensors", "sweeps/left/model.pt", ".git/objects/ab/cd", ".venv/lib/python3.11/site-packages/a.py",
        "features/text.npy", "llmemf/__pycache__/config.cpython-311.pyc",
    ]  # fmt: skip
    for name in large:
        (copy / name).parent.mkdir(parents=True, exist_ok=True)
        (copy / name).write_bytes(b"\0" * 2**20)
    return copy, large


def test_an_upload_holds_the_code_and_nothing_large(checkout, tmp_path):
    """By the code that `ray job submit --working-dir .` runs."""
    from zipfile import ZipFile

    from ray._private.runtime_env.packaging import create_package

    folder, large = checkout
    package = tmp_path / "upload.zip"
    create_package(str(folder), package, excludes=[], include_gitignore=True)
    names = {name for name in ZipFile(package).namelist() if not name.endswith("/")}
    assert not names & set(large)
    assert not [
        name for name in names if name.startswith(("data/", "mlruns/", ".git/", ".venv/", "results/", "weights/"))
    ]
    own = {str(path.relative_to(folder)) for name in ("llmemf", "sweeps") for path in (folder / name).rglob("*.py")}
    assert own and own <= names
    assert {f"sweeps/scenarios/{name}.yaml" for name in ("movie_book", "sample")} <= names
    assert package.stat().st_size < 3 * 2**20, "it is sent to the cluster at every submission"


def test_rayignore_names_what_git_ignores_besides():
    """`.rayignore` must do without `.gitignore`: a checkout may be copied without it."""
    lines = set(read(".rayignore").splitlines())
    ignored = {line for line in read(".gitignore").splitlines() if line and not line.startswith("#")}
    assert ignored <= lines
