"""`llmemf features encode` as a user meets it: what he sees, what is on disk, a killed run, a cluster of two workers."""

import os
import signal
import socket
import subprocess
import sys
import time

import command_calls
import numpy as np
import pytest
from PIL import Image
from small_clip import PHOTOS, photos, write_llm_text, write_scenario, write_small_clip
from typer.testing import CliRunner

from llmemf.__main__ import app
from llmemf.errors import InputError
from llmemf.features import encoding
from llmemf.features.cluster import Pool
from llmemf.features.finding import find_features
from llmemf.scenarios.scenario import find_scenario


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root with the scenario `shop`: ten items with LLM text, pictures, one of them broken."""
    for number in range(10):
        Image.new("RGB", (40 + number, 50), (25 * number, 99, 250 - 25 * number)).save(tmp_path / f"{number}.png")
    scenario = write_scenario(
        tmp_path / "data", [f"thing {number}" for number in range(10)], [tmp_path / f"{n}.png" for n in range(10)]
    )
    write_llm_text(scenario, {number: f"a fine thing of size {number}" for number in range(9)})
    (scenario.folder / "images" / "3.png").write_text("broken")
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "data"


call, refuse = command_calls.below("features")


def folders(root):
    return sorted(path.name for path in (root / "shop" / "features").iterdir())


def test_both_kinds(root, small):
    printed = call("encode", "shop", "--model", small, "--workers", 0)
    assert "on cpu in fp32" in printed
    assert "10 of 10 items of text.clip-small-title+llm" in printed
    assert "10 of 10 items of image.clip-small" in printed and "4 of 5 (80 %)" in printed
    assert "1 item without LLM text, encoded from the rest alone" in printed
    assert "first: item 3 (i3), images/3.png: no image file that PIL knows" in printed
    assert "all of them are listed in" in printed
    last = printed.splitlines()[-1]
    assert last.startswith("next: ") and "sweep --scenario shop" in last
    assert "--set text_encoder=clip-small-title+llm --set image_encoder=clip-small" in last
    assert folders(root) == ["image.clip-small", "text.clip-small-title+llm"], "no shard is left"
    again = call("encode", "shop", "--model", small, "--workers", 0)
    assert again.count("up to date, nothing to do") == 2


def test_three_texts_at_once(root, small):
    sources = ["--text", "title", "--text", "llm", "--text", "title+llm"]
    printed = call("encode", "shop", "--model", small, "--kind", "text", "--workers", 0, *sources)
    assert folders(root) == [f"text.clip-small-{source}" for source in ("llm", "title", "title+llm")]
    assert "9 of 9 items of text.clip-small-llm" in printed
    assert all(f"--set text_encoder=clip-small-{source}" in printed for source in ("title", "llm", "title+llm"))


def test_features_from_something_else_are_replaced_only_on_demand(root, small, capsys):
    command = ["encode", "shop", "--model", small, "--kind", "text", "--text", "llm", "--workers", 0]
    call(*command)
    before = find_features(find_scenario("shop", root), "text").hash()
    write_llm_text(find_scenario("shop", root), dict.fromkeys(range(10), "another text"))
    line = refuse(capsys, *command)
    assert "text.clip-small-llm exist already and were made from something else (source_sha256 differ)" in line
    assert "--overwrite" in line and "--encoder" in line
    assert find_features(find_scenario("shop", root), "text").hash() == before
    call(*command, "--overwrite")
    assert find_features(find_scenario("shop", root), "text").has.all()
    call(*command, "--encoder", "second")
    assert folders(root) == ["text.clip-small-llm", "text.second-llm"]


def test_without_llm_text_or_weights_there_is_one_line_and_nothing_on_disk(root, small, capsys, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("llmemf.features.clip._hub_answers", lambda: True)
    assert "neither in the local cache nor can they be downloaded" in refuse(capsys, "encode", "shop")
    (root / "shop" / "llm_text.parquet").unlink()
    assert "--text title" in refuse(capsys, "encode", "shop", "--model", small)
    assert "did you mean 'shop'?" in refuse(capsys, "encode", "shoop")
    assert "--ray-workers 2 without --ray-address" in refuse(capsys, "encode", "shop", "--ray-workers", 2)
    assert "needs a GPU" in refuse(
        capsys, "encode", "shop", "--text", "title", "--precision", "fp16", "--device", "cpu"
    )
    assert not (root / "shop" / "features").exists()


def test_nothing_readable_writes_nothing(root, small, capsys):
    for number in range(10):
        (root / "shop" / "images" / f"{number}.png").write_text("")
    line = refuse(capsys, "encode", "shop", "--kind", "image", "--model", small, "--workers", 0)
    assert "none of its images can be encoded; first: item 0 (i0), images/0.png: the file is empty" in line
    assert not [name for name in folders(root) if not name.startswith(".")]


def test_ctrl_c_keeps_the_shards_and_says_so(root, small, monkeypatch):
    write, written = encoding.Shard, []

    def interrupt(*arguments):
        written.append(1)
        if len(written) == 3:
            raise KeyboardInterrupt
        return write(*arguments)

    command = ["encode", "shop", "--kind", "image", "--model", small, "--workers", 0, "--shard-size", 2]
    with monkeypatch.context() as patch:
        patch.setattr(encoding, "Shard", interrupt)
        result = CliRunner().invoke(app, ["features", *map(str, command)])
    assert result.exit_code == 130
    assert "stopped: 2 of 5 shards of image.clip-small are kept; the same command encodes the rest" in result.output
    assert "image.clip-small: 2 of 5 shards are there already" in call(*command)


SLOW = "import time; from llmemf.features import encoding; old = encoding._encode_batch\n"
SLOW += "encoding._encode_batch = lambda *given: (time.sleep(0.05), old(*given))[1]\n"
SLOW += "from llmemf.__main__ import main; main()"
"""The command with a pause after every batch, so that there is time to kill it in the middle."""


@pytest.mark.slow
@pytest.mark.data
@pytest.mark.skipif(not PHOTOS.exists(), reason=f"{PHOTOS} does not exist: set LLMEMF_REAL_DATA")
def test_a_killed_run_gives_the_bits_of_one_that_was_not(tmp_path, small):
    names, files, _ = photos()
    whole, killed = (write_scenario(tmp_path / "data", names, files, name=name) for name in ("whole", "killed"))
    options = ["--data-root", str(tmp_path / "data"), "--model", small, "--kind", "image"]
    options += ["--shard-size", "9", "--batch-size", "4", "--workers", "1"]
    call("encode", "whole", *options)
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW, "features", "encode", "killed", *options],
        stdout=subprocess.PIPE,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    shards = killed.folder / "features" / ".image.clip-small.shards"
    deadline = time.monotonic() + 60
    while len(list(shards.glob("0*.safetensors"))) < 2:
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    process.stdout.close()
    kept = len(list(shards.glob("0*.safetensors")))
    assert 2 <= kept < 9 and not (killed.folder / "features" / "image.clip-small").exists()
    printed = call("encode", "killed", *options)
    assert f"image.clip-small: {kept} of 9 shards are there already" in printed
    one, other = (find_features(scenario, "image") for scenario in (whole, killed))
    assert one.hash() == other.hash() and one.has.all()


DYING = """
import os
from pathlib import Path
from llmemf.features import cluster

class Dying(cluster.ShardEncoder):
    def __call__(self, batch):
        for row in super().__call__(batch):
            with Path({mark!r}).open("a") as file:
                file.write(".")
            if Path({mark!r}).stat().st_size <= {deaths}:
                os._exit(1)
            yield row

cluster.ShardEncoder = Dying
from llmemf.__main__ import main
main()
"""
"""The command with workers that die after a shard, so many times."""


def on_two_workers(tmp_path, options, deaths):
    script = DYING.format(mark=str(tmp_path / "deaths"), deaths=deaths)
    command = [sys.executable, "-c", script, "features", "encode", "spread", *options]
    command += ["--ray-address", "local", "--ray-workers", "2"]
    return subprocess.run(command, check=False, capture_output=True, text=True, timeout=600)


@pytest.mark.chaos
@pytest.mark.data
@pytest.mark.skipif(not PHOTOS.exists(), reason=f"{PHOTOS} does not exist: set LLMEMF_REAL_DATA")
def test_two_workers_of_a_cluster_give_the_same_bits_even_if_one_dies(tmp_path, small):
    names, files, texts = photos()
    alone, spread = (write_scenario(tmp_path / "data", names, files, name=name) for name in ("alone", "spread"))
    for scenario in (alone, spread):
        write_llm_text(scenario, dict(enumerate(texts)))
        (scenario.folder / "images" / "17.jpg").write_text("broken")
    options = ["--data-root", str(tmp_path / "data"), "--model", small, "--shard-size", "9", "--batch-size", "4"]
    call("encode", "alone", *options)
    done = on_two_workers(tmp_path, options, deaths=1)
    assert done.returncode == 0, done.stderr
    assert "2 Ray workers with" in done.stdout
    assert done.stderr == "", "Ray keeps its messages to itself"
    assert (tmp_path / "deaths").exists()
    for kind in ("text", "image"):
        one, other = (find_features(scenario, kind) for scenario in (alone, spread))
        assert one.hash() == other.hash()
        assert one.details == other.details
    assert int(find_features(spread, "image").has.sum()) == 80


@pytest.mark.chaos
def test_workers_that_die_again_and_again_end_the_run_in_one_line(root, tmp_path, small):
    (root / "shop").rename(root / "spread")
    options = ["--data-root", str(root), "--model", small, "--kind", "image", "--shard-size", "10"]
    done = on_two_workers(tmp_path, options, deaths=99)
    assert done.returncode == 2
    assert done.stderr.startswith("error: 3 workers of the cluster died over shard 0") and done.stderr.count("\n") == 1


def test_a_cluster_that_is_not_there_is_told_at_once(root, small, capsys, monkeypatch):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        closed = f"127.0.0.1:{free.getsockname()[1]}"
    command = ["encode", "shop", "--model", small, "--ray-address"]
    assert f"no Ray cluster answers at {closed}" in refuse(capsys, *command, closed)
    assert "no Ray cluster answers at nonsense" in refuse(capsys, *command, "nonsense")
    assert "give HOST:PORT of the head" in refuse(capsys, *command, "ray://head:10001")
    monkeypatch.setenv("RAY_TMPDIR", str(root))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert "no Ray runs on this machine" in refuse(capsys, *command, "auto")
    monkeypatch.setenv("RAY_ADDRESS", closed)
    assert f"--ray-address auto: no Ray cluster answers at {closed}" in refuse(capsys, *command, "auto")


def test_a_cluster_is_shared_fairly():
    resources = {"CPU": 32.0, "GPU": 4.0}
    assert Pool.of(resources, "cuda") == Pool(workers=4, cpus=8, gpus=1)
    assert str(Pool.of(resources, "cuda")) == "4 Ray workers with 1 GPU each"
    assert Pool.of(resources, "cpu") == Pool(workers=8, cpus=4, gpus=0)
    assert Pool.of(resources, "cpu", 3) == Pool(workers=3, cpus=10, gpus=0)
    with pytest.raises(InputError, match="--ray-workers 5: the cluster has 4 GPU"):
        Pool.of(resources, "cuda", 5)


def test_help_and_errors_come_without_the_model_libraries(root):
    script = (
        "import sys\nfrom llmemf.__main__ import main\n"
        "try:\n    main(['features', 'encode', 'nobody'])\nexcept SystemExit as left:\n    assert left.code == 2\n"
        "print('loaded', sorted({'torch', 'open_clip', 'sklearn', 'ray'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", script], check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout == "loaded []\n", done.stdout + done.stderr


@pytest.mark.slow
def test_rows_do_not_depend_on_workers_nor_much_on_shards(root, small):
    """A batch of another size may give other last bits: the matrix product takes another way through its blocks."""
    made = []
    for number, (workers, size) in enumerate([(0, 4), (2, 4), (0, 10)]):
        given = ["--workers", workers, "--shard-size", size, "--batch-size", 2, "--encoder", f"e{number}"]
        call("encode", "shop", "--model", small, "--kind", "image", *given)
        made.append(find_features(find_scenario("shop", root), "image", f"e{number}").rows)
    assert np.array_equal(made[0], made[1])
    assert np.allclose(made[0], made[2], atol=1e-6)
