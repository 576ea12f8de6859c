"""Settings: what is refused, how values are written on a command line, what a broken file says."""

import pytest
import yaml

from llmemf.config import (
    TrialConfig,
    build_config,
    parse_assignment,
    parse_value,
    read_yaml,
)
from llmemf.errors import InputError
from llmemf.models import MODELS, model_class
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.removed import REMOVED, without_removed


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"lrr": 1}, "here: unknown key 'lrr': did you mean 'lr'?"),
        ({"batchsize": 1}, "here: unknown key 'batchsize': did you mean 'batch_size'?"),
        ({1: 2}, "here: unknown key 1: valid names: "),
        ({"lr": -0.01}, "here: lr = -0.01: Input should be greater than 0"),
        ({"lr": "fast"}, "here: lr = 'fast': Input should be a valid number"),
        ({"lr": float("nan")}, "here: lr = nan: Input should be"),
        ({"lr": float("inf")}, "here: lr = inf: Input should be"),
        ({"epochs": 0}, "here: epochs = 0: Input should be greater than or equal to 1"),
        ({"epochs": 2.5}, "here: epochs = 2.5: "),
        ({"dropout": 1}, "here: dropout = 1: Input should be less than 1"),
        ({"ties": "random"}, "here: ties = 'random': Input should be 'mean', 'optimistic' or 'pessimistic'"),
        ({"monitor": "val_loss", "selection": "per_domain"}, "here: selection = per_domain needs monitor = val_mrr"),
    ],
    ids=str,
)
def test_a_wrong_setting_is_named_with_its_value_and_what_is_valid(values, message):
    with pytest.raises(InputError) as caught:
        build_config(TrialConfig, values, where="here")
    assert str(caught.value).startswith(message)


def test_all_problems_come_at_once_on_one_line():
    with pytest.raises(InputError) as caught:
        build_config(TrialConfig, {"lr": -1, "epochs": 0})
    assert "lr = -1" in str(caught.value) and "epochs = 0" in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(InputError, match="'lrr'.*'epoch'"):
        build_config(TrialConfig, {"lrr": 1, "epoch": 1})


def test_configurations_are_frozen_and_come_back_from_plain_values():
    config = build_config(LLMEMFConfig, {"modalities": ["id", "text"], "lr": 1e-3})
    with pytest.raises(Exception, match="frozen"):
        config.lr = 1.0
    assert config.to_dict()["modalities"] == ["id", "text"]
    assert build_config(LLMEMFConfig, config.to_dict()) == config


def test_defaults_are_the_papers():
    config = LLMEMFConfig()
    assert (config.batch_size, config.dropout, config.epochs, config.patience) == (256, 0.3, 100, 10)
    assert (config.id_dim, config.lambda1, config.lambda2, config.max_length) == (256, 0.3, 0.1, 15)


def test_every_setting_explains_itself():
    assert not [name for name, field in LLMEMFConfig.model_fields.items() if name != "model" and not field.description]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("lr=1e-3", ("lr", 0.001)),
        ("lr=5E-4", ("lr", 0.0005)),
        ("lr=2.5e2", ("lr", 250.0)),
        ("lr = 0.01", ("lr", 0.01)),
        ("epochs=5", ("epochs", 5)),
        ("positions=false", ("positions", False)),
        ("positions=true", ("positions", True)),
        ("layout=aligned", ("layout", "aligned")),
        ("eval_lambda1=null", ("eval_lambda1", None)),
        ("lr=1e-3,5e-3", ("lr", [0.001, 0.005])),
        ("modalities=id,text", ("modalities", ["id", "text"])),
        ("modalities=[id, text]", ("modalities", ["id", "text"])),
        ("lr={low: 1, high: 2, log: true}", ("lr", {"low": 1, "high": 2, "log": True})),
        ("device=cuda:1", ("device", "cuda:1")),
        ("note=a=b", ("note", "a=b")),
        ("note=no", ("note", "no")),
        ("note=on", ("note", "on")),
        ("epochs=010", ("epochs", 10)),
        ("epochs=+3", ("epochs", 3)),
        ("seed=0x1F", ("seed", 31)),
        ("note=1:30", ("note", "1:30")),
        ("note=2026-01-01", ("note", "2026-01-01")),
        ("lr=.5", ("lr", 0.5)),
        ("lr=5.", ("lr", 5.0)),
        ("note=", ("note", None)),
        ("note='1'", ("note", "1")),
    ],
)
def test_assignments(text, expected):
    key, value = parse_assignment(text)
    assert (key, value) == expected and type(value) is type(expected[1])


def test_exponents_in_written_lists_are_numbers():
    assert parse_value("[1e-3, 5e-3]", where="here") == [0.001, 0.005]
    assert parse_value("{low: 1e-4, high: 1e-2}", where="here") == {"low": 0.0001, "high": 0.01}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("lr", "--set 'lr': write key=value"),
        ("=3", "--set '=3': write key=value"),
        ("lr=[1", "--set lr: '.1' cannot be"),
        ("lr={low: 1, low: 2}", "--set lr: .*'low' stands there twice"),
    ],
)
def test_broken_assignments(text, message):
    with pytest.raises(InputError, match=message):
        parse_assignment(text)


def test_yaml_files(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text("lr: 0.01\nepochs: 3\n")
    assert read_yaml(path) == {"lr": 0.01, "epochs": 3}
    path.write_text("lr: 0.01\nepochs: [3\nx: 1\n")
    with pytest.raises(InputError, match=r"trial.yaml line 3: not valid YAML"):
        read_yaml(path)
    path.write_text("- 1\n- 2\n")
    with pytest.raises(InputError, match=r"trial.yaml: a mapping"):
        read_yaml(path)
    path.write_bytes(b"name: \xff\xfe\n")
    with pytest.raises(InputError, match=r"trial.yaml.*UTF-8"):
        read_yaml(path)
    with pytest.raises(InputError, match=r"none.yaml cannot be read: No such file"):
        read_yaml(tmp_path / "none.yaml")
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_yaml(tmp_path)


def test_exponents_in_yaml_files_are_numbers(tmp_path):
    (tmp_path / "trial.yaml").write_text("lr: 1e-3\nl2: [1e-4, 5e-5]\n")
    content = read_yaml(tmp_path / "trial.yaml")
    config = build_config(TrialConfig, {"lr": content["lr"]})
    assert config.lr == 0.001


@pytest.mark.parametrize(
    ("text", "key", "line"),
    [
        ("lr: 1\nepochs: 2\nlr: 3\n", "lr", 3),
        ("space:\n  lr: [1]\n  l2: [1]\n  lr: [2]\n", "lr", 4),
        ("fixed: {a: 1, a: 1}\n", "a", 1),
    ],
)
def test_a_key_that_stands_twice_is_refused(tmp_path, text, key, line):
    path = tmp_path / "trial.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=rf"trial\.yaml line {line}: .*'{key}'"):
        read_yaml(path)


def test_a_mapping_may_change_what_it_merges(tmp_path):
    path = tmp_path / "trial.yaml"
    path.write_text("base: &base {lr: 1, l2: 2}\nother: {<<: *base, lr: 3}\n")
    assert read_yaml(path)["other"] == {"lr": 3, "l2": 2}


def test_what_the_house_writes_is_read_back(tmp_path):
    """Files are written by PyYAML, which quotes for YAML 1.1."""
    values = {"a": ["no", "010", "1:30", "null", "2026-01-01", ""], "b": [1e-05, 0.1, 3, True, None, -1.0]}
    (tmp_path / "x.yaml").write_text(yaml.safe_dump(values))
    assert read_yaml(tmp_path / "x.yaml") == values


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cuda_graphs", False),
        ("group_encoders", "auto"),
        ("group_encoders", "no"),
        ("objective_kernel", "plain"),
        ("objective_precision", "auto"),
        ("stack", 1),
        ("norm", "query"),
        ("l2_emb", 0.0),
        ("align_normalisation", "source"),
    ],
)
def test_removed_settings_that_made_no_difference_are_dropped(key, value):
    assert without_removed({"lr": 0.1, key: value}, "old.yaml") == {"lr": 0.1}


def test_a_setting_that_other_models_still_have_is_removed_for_one():
    old = {"model": "sasrec", "positions": "from_start", "norm": "query"}
    assert without_removed(old, "old.yaml") == {"model": "sasrec"}
    assert without_removed({"positions": "from_start"}, "old.yaml", "sasrec") == {}
    assert without_removed({"positions": True}, "old.yaml", "llm_emf") == {"positions": True}
    with pytest.raises(InputError, match=r"^old\.yaml: positions = 'from_end' was removed"):
        without_removed({**old, "positions": "from_end"}, "old.yaml")
    with pytest.raises(InputError, match="--set: positions was removed"):
        build_config(model_class("sasrec").config_class, {"model": "sasrec", "positions": "from_end"}, where="--set")


def test_what_a_model_still_has_is_not_removed():
    for name in MODELS:
        fields = model_class(name).config_class.model_fields
        assert not [key for key in fields if key in REMOVED or f"{name}.{key}" in REMOVED], name


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("cuda_graphs", True),
        ("group_encoders", "yes"),
        ("objective_kernel", "triton"),
        ("stack", 4),
        ("stack", True),
        ("norm", "pre"),
    ],
)
def test_removed_settings_that_made_a_difference_are_refused(key, value):
    with pytest.raises(InputError, match=rf"^old\.yaml: {key} = {value!r} was removed"):
        without_removed({"lr": 0.1, key: value}, "old.yaml")


def test_a_setting_keeps_the_values_that_it_still_has():
    assert without_removed({"objective_precision": "fp16"}, "old.yaml") == {"objective_precision": "fp16"}


def test_a_removed_setting_that_is_given_is_refused_with_what_to_do():
    with pytest.raises(InputError, match="--set: cuda_graphs was removed"):
        build_config(LLMEMFConfig, {"cuda_graphs": False}, where="--set")
