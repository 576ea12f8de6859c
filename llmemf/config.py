"""The configuration of one trial: typed, validated, frozen, flat.

`TrialConfig` holds what every system shares; each system adds its own fields by subclassing it in its own file
(`llmemf.models.llm_emf_config.LLMEMFConfig`). The keys stay flat so that `--set key=value`, the search space and MLflow
params all use the same short names.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from llmemf.errors import InputError, nearest
from llmemf.removed import REMOVED, remedy


class TrialConfig(BaseModel):
    """Settings that every system shares. Defaults are the paper's (section 4.1.4) where it names one."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True, allow_inf_nan=False)

    model: str = "llm_emf"
    """The system, a name from `llmemf.models.MODELS`."""
    seed: int = Field(0, ge=0, lt=2**32)
    """Seed of initialisation, shuffling, dropout and sampled negatives."""
    epochs: int = Field(100, ge=1)
    """Epochs at most."""
    patience: int = Field(10, ge=0)
    """Stop after this many epochs without a better monitored value; 0 never stops early."""
    monitor: Literal["val_mrr", "val_loss"] = "val_mrr"
    """What decides early stopping and the choice of the checkpoint: mean validation MRR of both domains, or the loss."""
    selection: Literal["joint", "per_domain"] = "joint"
    """One checkpoint for both domains, or the best of each domain (the literal reading of published tables)."""
    batch_size: int = Field(256, ge=1)
    """Sequences per training step."""
    eval_batch_size: int = Field(256, ge=1)
    """Cases per scoring step."""
    valid_cases: int = Field(0, ge=0)
    """Score only this many validation cases (a seeded sample, the same in every trial); 0 scores all of them."""
    max_length: int = Field(15, ge=2)
    """Latest items of a history that the model sees."""
    optimizer: Literal["adam", "adagrad"] = "adam"
    """Adam, or Adagrad, which GRU4Rec's authors use."""
    lr: float = Field(1e-3, gt=0)
    """Learning rate."""
    warmup_epochs: int = Field(0, ge=0)
    """The learning rate rises linearly, step by step, over the first so many epochs."""
    lr_schedule: Literal["constant", "cosine", "plateau"] = "constant"
    """The learning rate afterwards: as it is, falling along half a cosine to `lr_end` of it in the last of `epochs`, or
    times `plateau_factor` whenever `plateau_epochs` epochs brought no better monitored value."""
    lr_end: float = Field(0.01, ge=0, le=1)
    """Share of the learning rate that `cosine` ends with."""
    plateau_epochs: int = Field(30, ge=1)
    """Epochs without a better value after which `plateau` lowers the learning rate."""
    plateau_factor: float = Field(0.316, gt=0, lt=1)
    """What `plateau` multiplies the learning rate by."""
    l2: float = Field(5e-5, ge=0)
    """L2 strength; see `l2_mode`."""
    l2_mode: Literal["adam", "adamw", "embedding_rows", "none"] = "adam"
    """What L2 is applied to: coupled weight decay (not on norms, biases, scales), AdamW, the id rows of the batch only, or nowhere."""
    dropout: float = Field(0.3, ge=0, lt=1)
    """Dropout of embeddings, attention weights and feed-forward layers."""
    clip_norm: float = Field(0.0, ge=0)
    """Clip the gradient to this norm; 0 does not clip."""
    clip_value: float = Field(0.0, ge=0)
    """Cut every single value of the gradient to this size, before its norm is taken; 0 does not (pi-Net and MIFN: 5)."""
    ties: Literal["mean", "optimistic", "pessimistic"] = "mean"
    """Rank among equal scores: the mean rank, before all of them (literal C2DSR), or after all of them."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Arithmetic of encoders during training on a GPU; fp32 there has TF32 products. Ranking and a CPU always use full fp32."""
    device: str = "auto"
    """auto, cpu, cuda, or cuda:N."""

    @model_validator(mode="after")
    def _check_choices(self) -> TrialConfig:
        if self.monitor == "val_loss" and self.selection == "per_domain":
            raise ValueError("selection = per_domain needs monitor = val_mrr: there is one validation loss, not two")
        if self.optimizer == "adagrad" and self.l2_mode == "adamw":
            raise ValueError("optimizer = adagrad has no decoupled decay: set l2_mode = adam, embedding_rows or none")
        return self

    def to_dict(self) -> dict[str, Any]:
        """Plain values, ready for JSON, YAML and MLflow."""
        return json.loads(self.model_dump_json())


class BaselineConfig(TrialConfig):
    """Settings of comparison systems that are trained; the defaults suit budgets of 3 to 10 epochs."""

    lr: float = Field(5e-3, gt=0)
    """Learning rate. Most sources have 1e-3 over 50 to 100 epochs; on catalogues of 50,000 to 100,000 items, where an item
    is a target a few times per epoch, 5e-3 to 1e-2 are ahead after 3 to 10 epochs."""
    l2: float = Field(0.0, ge=0)
    """L2 strength; see `l2_mode`. 0, since coupled decay under Adam pulls rows that a step leaves alone towards zero however
    small the strength: with 5e-5, one epoch of GRU4Rec at 5e-3 took two thirds off the vectors of items that occur once.
    `l2_mode: adamw` and `embedding_rows` do no such thing."""

    dim: int = Field(64, ge=1)
    """Width of vectors and states."""

    @model_validator(mode="after")
    def _check_heads(self) -> BaselineConfig:
        heads = getattr(self, "heads", 1)
        if self.dim % heads:
            raise ValueError(f"heads = {heads} must divide dim = {self.dim}")
        return self


def build_config(config_class: type[BaseModel], values: Mapping[str, Any], *, where: str = "configuration") -> Any:
    """Validate `values` into `config_class`.

    Raises:
        InputError: every problem on one line each: the key, its value, what is valid; a misspelt key gets the
            nearest valid name.
    """
    problems = unknown_keys(values, config_class.model_fields, where)
    if problems:
        raise InputError("; ".join(problems))
    try:
        return config_class(**values)
    except ValidationError as error:
        lines = []
        for item in error.errors():
            key = ".".join(str(part) for part in item["loc"])
            message = item["msg"].removeprefix("Value error, ")
            lines.append(f"{where}: {key} = {item['input']!r}: {message}" if key else f"{where}: {message}")
        raise InputError("; ".join(lines)) from None


def unknown_keys(values: Iterable[str], valid: Iterable[str], where: str) -> list[str]:
    """One sentence per key of `values` that is not in `valid`: the nearest valid one, or what became of a removed setting."""
    valid = list(valid)
    model = values.get("model", "") if isinstance(values, Mapping) else ""
    return [
        f"{where}: {key} was removed: {remedy(key)}"
        if key in REMOVED or f"{model}.{key}" in REMOVED
        else f"{where}: unknown key {key!r}: {nearest(str(key), valid)}"
        for key in values
        if key not in valid
    ]


class _Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]  # ten times as fast where libyaml is
    """Safe YAML 1.2: `no` and `on` are text, `010` is 10, `1:30` is text, `1e-3` a number; no key stands twice in a mapping."""

    yaml_implicit_resolvers: ClassVar[dict] = {}

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[tuple[str, str]] = set()
        for key, _ in node.value:
            name = (key.tag, str(key.value))
            if name in seen:
                raise yaml.constructor.ConstructorError(None, None, f"{key.value!r} stands there twice", key.start_mark)
            seen.add(name)
        return super().construct_mapping(node, deep)

    def construct_integer(self, node: yaml.ScalarNode) -> int:
        text = node.value
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_integer)
for _kind, _pattern, _first in (
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("bool", r"true|True|TRUE|false|False|FALSE", list("tTfF")),
    ("int", r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+", list("-+0123456789")),
    (
        "float",
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        list("-+.0123456789"),
    ),
    ("merge", r"<<", ["<"]),
):
    # The first kind that matches wins: an integer before a number with a fraction.
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_kind}", re.compile(rf"(?:{_pattern})\Z"), _first)


def parse_assignment(text: str, *, flag: str = "--set") -> tuple[str, Any]:
    """Split `key=value` of `--set`, or of another option; the value is read as YAML.

    Raises:
        InputError: there is no `=`, or the value is not YAML.
    """
    key, sign, value = text.partition("=")
    if not sign or not key.strip():
        raise InputError(f"{flag} {text!r}: write key=value")
    return key.strip(), parse_value(value, where=f"{flag} {key.strip()}")


def parse_value(text: str, *, where: str) -> Any:
    """Read one value as YAML, with `a,b` as a list.

    Raises:
        InputError: it is not YAML.
    """
    if "," in text and not text.strip().startswith(("[", "{")):
        return [parse_value(part, where=where) for part in text.split(",")]
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        problem = getattr(error, "problem", None)
        raise InputError(
            f"{where}: {text!r} cannot be read as a value" + (f" ({problem})" if problem else "")
        ) from None


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping.

    Raises:
        InputError: no such file, broken YAML or a key that stands twice (with the line), or something else than a mapping.
    """
    path = Path(path)
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text (byte {error.start}): save it as such") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" line {mark.line + 1}" if mark else ""
        raise InputError(f"{path}{line}: not valid YAML ({getattr(error, 'problem', error)})") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: a mapping of keys to values is expected")
    return content
