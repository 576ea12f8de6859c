"""A frozen CLIP model of open_clip: its weights, and vectors of texts and images.

Shapes: B batch, L tokens, D width of the joint space.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import urllib.parse
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from llmemf.command_line import command_line
from llmemf.errors import InputError, nearest
from llmemf.io import bytes_hash
from llmemf.text_format import plural

if TYPE_CHECKING:
    from llmemf.features.text_pieces import PieceTokenizer

SCHEMAS = ("local-dir:", "hf-hub:")
PRECISIONS = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}
PADDING_MULTIPLE = 16
"""Texts are padded to the longest of their batch, rounded up to this: whole vector registers keep the bits of fp32."""


@dataclass(frozen=True)
class ClipSettings:
    """Which model runs where.

    Attributes:
        model: a name of open_clip ("ViT-B-32"), "local-dir:FOLDER" or "hf-hub:OWNER/NAME".
        pretrained: a tag of open_clip ("openai") or a checkpoint file; empty for the last two forms of `model`.
        device: "cpu", "cuda", "cuda:1", ...
        precision: "fp32", or "fp16"/"bf16" by autocast.
    """

    model: str = "ViT-B-32"
    pretrained: str = "openai"
    device: str = "cpu"
    precision: str = "fp32"


@dataclass(frozen=True)
class Clip:
    """A loaded model in evaluation mode, and all that identifies it.

    Attributes:
        preprocess: open_clip's inference transform, PIL image to (3, H, W) float32.
        tokenizer: texts to pieces of token ids.
        facts: plain facts for a manifest.
    """

    settings: ClipSettings
    model: Any
    preprocess: Callable
    tokenizer: PieceTokenizer
    facts: dict = field(default_factory=dict)

    def encode_text(self, ids_BL: torch.Tensor) -> torch.Tensor:
        """(B, L) token ids to (B, D) float32 rows of length 1; L may be shorter than the context if `shortens`."""
        ids_BL = ids_BL.to(self.settings.device, non_blocking=True)
        with self._inference():
            if ids_BL.shape[1] < self.tokenizer.context_length:
                rows_BD = self._encode_short(ids_BL)
            else:
                rows_BD = self.model.encode_text(ids_BL, normalize=True)
        return self._unit(rows_BD)

    def encode_image(self, images: torch.Tensor) -> torch.Tensor:
        """(B, 3, H, W) float32 as `preprocess` makes them to (B, D) float32 rows of length 1."""
        with self._inference():
            rows_BD = self.model.encode_image(images.to(self.settings.device, non_blocking=True), normalize=True)
        return self._unit(rows_BD)

    @property
    def shortens(self) -> bool:
        """Whether padding may be left out: the text encoder is causal and reads its answer at the text's end."""
        return (
            getattr(self.model, "attn_mask", None) is not None
            and getattr(self.model, "text_pool_type", None) in ("argmax", "eos")
            and getattr(self.model, "positional_embedding", None) is not None
        )

    def _encode_short(self, ids_BL: torch.Tensor) -> torch.Tensor:
        # open_clip adds all positions to whatever it gets, so it is called with the first L of them.
        length = ids_BL.shape[1]
        narrowed = {
            "positional_embedding": self.model.positional_embedding[:length],
            "attn_mask": self.model.attn_mask[:length, :length],
        }
        output = torch.func.functional_call(self.model, narrowed, (None, ids_BL))
        return output["text_features"] if isinstance(output, dict) else output[1]

    def _unit(self, rows_BD: torch.Tensor) -> torch.Tensor:
        # What was normalised in half precision has length 1 only to three digits.
        return rows_BD if rows_BD.dtype == torch.float32 else torch.nn.functional.normalize(rows_BD.float(), dim=-1)

    @contextlib.contextmanager
    def _inference(self) -> Iterator[None]:
        device, precision = torch.device(self.settings.device), self.settings.precision
        mixed = torch.autocast(device.type, PRECISIONS[precision], enabled=precision != "fp32")
        with torch.inference_mode(), mixed:
            yield


def resolve_device(device: str, precision: str, *, cuda: bool | None = None) -> tuple[str, str]:
    """What `auto` stands for: a GPU where there is one, and fp16 on it; otherwise the CPU in fp32.

    Args:
        device: "auto" or a device of torch.
        precision: "auto", "fp32", "fp16" or "bf16".
        cuda: whether the machines that do the work have a GPU; None asks this one.

    Raises:
        InputError: no such device, or a precision that it cannot do.
    """
    elsewhere = cuda is not None
    cuda = torch.cuda.is_available() if cuda is None else cuda
    chosen = ("cuda" if cuda else "cpu") if device == "auto" else device
    try:
        kind = torch.device(chosen)
    except RuntimeError:
        raise InputError(f"--device {device}: no device of torch; use auto, cpu, cuda or cuda:NUMBER") from None
    if kind.type == "cuda" and (not cuda or (not elsewhere and (kind.index or 0) >= torch.cuda.device_count())):
        found = f"{plural(torch.cuda.device_count(), 'GPU')} here" if not elsewhere else "no GPU in the cluster"
        raise InputError(f"--device {device}: torch finds {found}; use --device auto or cpu")
    if kind.type not in ("cpu", "cuda"):
        raise InputError(f"--device {device}: CLIP runs on cpu or cuda here; use one of them, or auto")
    if precision == "auto":
        precision = "fp16" if kind.type == "cuda" else "fp32"
    if precision not in PRECISIONS:
        raise InputError(f"--precision {precision}: use auto, {', '.join(PRECISIONS)}")
    if kind.type == "cpu" and precision == "fp16":
        raise InputError("--precision fp16 needs a GPU; on a CPU use fp32 (the default), or bf16 for approximate rows")
    return chosen, precision


def load_clip(settings: ClipSettings, *, device: str | None = None) -> Clip:
    """Load a model with its weights; it never runs with weights that it was not given.

    Args:
        settings: which model, and where it is to run.
        device: put it here instead, where the model is loaded only to know its weights (others will run it).

    Raises:
        InputError: unknown model or tag, weights that cannot be had or do not fit, a missing package.
    """
    is_local = settings.model.startswith(SCHEMAS[0]) or Path(settings.pretrained).is_file()
    if not is_local and not _hub_answers():
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
    import open_clip

    from llmemf.features.text_pieces import PieceTokenizer

    quick_gelu = _check_names(settings)
    with _quiet():
        try:
            model, preprocess = open_clip.create_model_from_pretrained(
                settings.model,
                settings.pretrained or None,
                device=device or settings.device,
                force_quick_gelu=quick_gelu,
            )
            tokenizer = open_clip.get_tokenizer(settings.model)
        except ImportError as error:
            raise InputError(
                f"model {settings.model} needs a package that is not installed ({error}): pip install transformers"
            ) from None
        except Exception as error:  # noqa: BLE001 - open_clip, torch, safetensors and the hub raise what they like
            raise InputError(_no_weights(settings, error)) from None
    model.eval().requires_grad_(False)
    context_length = int(getattr(model, "context_length", 0) or getattr(tokenizer, "context_length", 77))
    facts = {
        "model": _shown(settings.model),
        "pretrained": _shown(settings.pretrained) or None,
        "weights_sha256": hash_weights(model),
        "quick_gelu": quick_gelu or bool((open_clip.get_model_config(settings.model) or {}).get("quick_gelu")),
        "open_clip": open_clip.__version__,
        "torch": torch.__version__.split("+")[0],
        "context_length": context_length,
        "preprocess": {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in sorted(model.visual.preprocess_cfg.items())
        },
    }
    return Clip(settings, model, preprocess, PieceTokenizer(tokenizer, context_length), facts)


def hash_weights(model: torch.nn.Module) -> str:
    """SHA-256 over name, type, shape and values of every weight: the same for every file format and device."""
    parts: list[bytes | memoryview] = []
    for name, tensor in sorted(model.state_dict().items()):
        parts.append(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        parts.append(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return bytes_hash(*parts)


def _check_names(settings: ClipSettings) -> bool:
    """Check model and tag before anything is loaded; returns whether the tag's weights need QuickGELU."""
    import open_clip

    model, pretrained = settings.model, settings.pretrained
    if model.startswith(SCHEMAS):
        if pretrained:
            raise InputError(f"--model {model} brings its own weights: leave --pretrained {pretrained} out")
        if model.startswith(SCHEMAS[0]) and not Path(model.removeprefix(SCHEMAS[0]), "open_clip_config.json").is_file():
            raise InputError(f"--model {model}: the folder holds no open_clip_config.json")
        return False
    if model not in open_clip.list_models():
        raise InputError(
            f"--model {model}: open_clip knows no such model ({nearest(model, open_clip.list_models())}); also "
            "local-dir:FOLDER and hf-hub:OWNER/NAME"
        )
    if not pretrained:
        raise InputError(f"--model {model} needs weights: --pretrained {'|'.join(_tags(model)) or 'FILE'}")
    if Path(pretrained).is_file():
        return False
    if pretrained not in _tags(model):
        offered = f"a tag ({', '.join(_tags(model))}) or " if _tags(model) else ""
        raise InputError(f"--pretrained {pretrained}: no such file, and no tag of {model}; give {offered}a file")
    return bool(open_clip.get_pretrained_cfg(model, pretrained).get("quick_gelu"))


def _tags(model: str) -> list[str]:
    import open_clip

    return open_clip.list_pretrained_tags_by_model(model)


def _no_weights(settings: ClipSettings, error: Exception) -> str:
    """One message: what failed, and how to get the weights or to pass a local file."""
    import open_clip

    model, pretrained = settings.model, settings.pretrained
    reason = " ".join(str(error).split("Last error: ")[-1].split()).split(". ")[0][:200] or type(error).__name__
    if model.startswith(SCHEMAS):
        return f"--model {model} cannot be loaded: {reason}"
    if Path(pretrained).is_file():
        hint = ""
        if "TorchScript" in reason:
            hint = "; it is a TorchScript archive: save its state_dict() as .safetensors first"
        return f"--pretrained {pretrained} does not hold weights of {model}{hint} ({reason})"
    config = open_clip.get_pretrained_cfg(model, pretrained)
    repository = config.get("hf_hub", "").rstrip("/")
    address = f"https://huggingface.co/{repository}" if repository else config.get("url", "")
    variant = model
    if config.get("quick_gelu") and not (open_clip.get_model_config(model) or {}).get("quick_gelu"):
        quick = f"{model}-quickgelu"
        variant = quick if quick in open_clip.list_models() else model
    return (
        f"the weights {pretrained!r} of {model} are neither in the local cache nor can they be downloaded ({reason}). "
        f"With internet access this command downloads them by itself, once; otherwise fetch the checkpoint "
        f"(open_clip_model.safetensors or open_clip_pytorch_model.bin) from {address} on another machine and pass it: "
        f"--model {variant} --pretrained FILE. For features without any weights: {command_line('features', 'offline', 'NAME')}"
    )


def _hub_answers() -> bool:
    """Whether the model hub's name resolves; without this the hub's client tries again and again for a minute."""
    if any(os.environ.get(name) for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY")):
        return True
    host = urllib.parse.urlparse(os.environ.get("HF_ENDPOINT") or "https://huggingface.co").hostname
    try:
        socket.getaddrinfo(host, 443)
    except OSError:
        return False
    return True


def _shown(name: str) -> str:
    """A model or tag as a manifest names it: of a local file or folder its name alone."""
    if name.startswith(SCHEMAS[0]):
        return SCHEMAS[0] + Path(name.removeprefix(SCHEMAS[0])).resolve().name
    return Path(name).name if Path(name).is_file() else name


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the log lines of open_clip and the hub off the terminal: what matters comes as an exception."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
