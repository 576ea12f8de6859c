"""Loading a CLIP model: the weights are those that were named, or there is one clear message; no network anywhere."""

import json
import socket

import pytest
import torch
from safetensors.torch import load_file
from small_clip import CONFIG, write_small_clip

from llmemf.errors import InputError
from llmemf.features.clip import ClipSettings, hash_weights, load_clip, resolve_device
from llmemf.features.text_pieces import padded


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    """Every attempt to reach another machine fails the test that makes it."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")

    def refuse(*_args, **_kwargs):
        raise OSError("no network here")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    return write_small_clip(tmp_path_factory.mktemp("model") / "small")


@pytest.fixture(scope="module")
def registered(tmp_path_factory):
    """The same architecture as a model name of open_clip; its weights are given as a file."""
    import open_clip

    folder = tmp_path_factory.mktemp("configs")
    (folder / "Small-Test.json").write_text(json.dumps(CONFIG))
    open_clip.add_model_config(folder / "Small-Test.json")
    yield "Small-Test"
    open_clip.factory._MODEL_CONFIG_PATHS.remove(folder / "Small-Test.json")
    open_clip.factory._MODEL_CONFIGS.pop("Small-Test")


def folder_of(small):
    return small.removeprefix("local-dir:")


def test_a_folder_and_a_file_hold_the_same_model(small, registered, tmp_path):
    weights = load_file(f"{folder_of(small)}/open_clip_model.safetensors")
    torch.save({"state_dict": weights}, tmp_path / "weights.pt")
    clips = [
        load_clip(ClipSettings(small, "")),
        load_clip(ClipSettings(registered, f"{folder_of(small)}/open_clip_model.safetensors")),
        load_clip(ClipSettings(registered, str(tmp_path / "weights.pt"))),
    ]
    assert len({clip.facts["weights_sha256"] for clip in clips}) == 1
    for clip in clips:
        assert all(torch.equal(value, weights[name]) for name, value in clip.model.state_dict().items())
        assert not clip.model.training and not any(one.requires_grad for one in clip.model.parameters())
    assert clips[2].facts["pretrained"] == "weights.pt", "a manifest names files, not folders of this machine"
    assert clips[0].facts["model"] == "local-dir:small"
    assert clips[0].facts["context_length"] == 77


def test_the_hash_sees_every_weight(small):
    model = load_clip(ClipSettings(small, "")).model
    before = hash_weights(model)
    with torch.no_grad():
        model.ln_final.bias[3] += 1e-6
    assert hash_weights(model) != before


def test_short_padding_keeps_the_rows(small):
    import open_clip

    clip = load_clip(ClipSettings(small, ""))
    assert clip.shortens
    pieces = [clip.tokenizer("a red fox " * count)[0] for count in (1, 2, 4, 9)]
    full = clip.encode_text(padded(pieces, 77, None))
    short = clip.encode_text(padded(pieces, 77, 16))
    assert padded(pieces, 77, 16).shape[1] == 32
    assert torch.equal(
        full,
        clip.model.encode_text(
            open_clip.get_tokenizer("ViT-B-32")(["a red fox " * count for count in (1, 2, 4, 9)]), normalize=True
        ),
    )
    torch.testing.assert_close(short, full, rtol=0, atol=1e-6)
    assert torch.allclose(short.norm(dim=1), torch.ones(4))


def test_half_precision_is_close_and_not_equal(small):
    exact, rough = (load_clip(ClipSettings(small, "", "cpu", precision)) for precision in ("fp32", "bf16"))
    images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    one, other = exact.encode_image(images), rough.encode_image(images)
    assert other.dtype == torch.float32 and not torch.equal(one, other)
    assert (one * other).sum(dim=1).min() > 0.999
    assert torch.allclose(other.norm(dim=1), torch.ones(3), atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        (ClipSettings("ViT-B-33", "openai"), ["--model ViT-B-33", "did you mean 'ViT-B-32'?"]),
        (ClipSettings("ViT-B-32", "opnai"), ["--pretrained opnai", "no such file", "openai"]),
        (ClipSettings("ViT-B-32", ""), ["needs weights", "openai"]),
        (ClipSettings("local-dir:/nowhere", ""), ["holds no open_clip_config.json"]),
        (ClipSettings("local-dir:/nowhere", "openai"), ["brings its own weights", "--pretrained openai"]),
    ],
)
def test_wrong_names(settings, parts):
    with pytest.raises(InputError) as error:
        load_clip(settings)
    assert all(part in str(error.value) for part in parts), error.value


@pytest.mark.parametrize(("tag", "variant"), [("openai", "ViT-B-32-quickgelu"), ("laion2b_s34b_b79k", "ViT-B-32 ")])
def test_weights_that_cannot_be_had(tag, variant, tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(InputError) as error:
        load_clip(ClipSettings("ViT-B-32", tag))
    message = str(error.value)
    assert f"the weights '{tag}' of ViT-B-32 are neither in the local cache nor can they be downloaded" in message
    assert "https://huggingface.co/" in message and f"--model {variant}" in message and "--pretrained FILE" in message


def test_no_model_without_its_weights(small, registered, tmp_path):
    config = tmp_path / "empty" / "open_clip_config.json"
    config.parent.mkdir()
    config.write_text(json.dumps({"model_cfg": CONFIG, "preprocess_cfg": {}}))
    with pytest.raises(InputError, match="cannot be loaded.*pretrained weights"):
        load_clip(ClipSettings(f"local-dir:{config.parent}", ""))
    (tmp_path / "text.pt").write_text("not a checkpoint")
    with pytest.raises(InputError, match="text.pt does not hold weights of Small-Test"):
        load_clip(ClipSettings(registered, str(tmp_path / "text.pt")))
    wide = write_small_clip(tmp_path / "wide", config=CONFIG | {"embed_dim": 12})
    with pytest.raises(InputError, match="does not hold weights of Small-Test.*size mismatch"):
        load_clip(ClipSettings(registered, f"{folder_of(wide)}/open_clip_model.safetensors"))


def test_what_auto_stands_for():
    assert resolve_device("auto", "auto", cuda=False) == ("cpu", "fp32")
    assert resolve_device("auto", "auto", cuda=True) == ("cuda", "fp16")
    assert resolve_device("cpu", "auto", cuda=True) == ("cpu", "fp32")
    assert resolve_device("cuda", "bf16", cuda=True) == ("cuda", "bf16")


@pytest.mark.parametrize(
    ("device", "precision", "message"),
    [
        ("tpu9", "auto", "no device of torch"),
        ("cuda", "auto", "no GPU in the cluster"),
        ("mps", "auto", "cpu or cuda"),
        ("cpu", "fp16", "needs a GPU"),
        ("cpu", "int8", "use auto, fp32, fp16, bf16"),
    ],
)
def test_devices_that_do_not_go(device, precision, message):
    with pytest.raises(InputError, match=message):
        resolve_device(device, precision, cuda=False)
