"""`llmemf models` as a user meets it."""

import re

import pytest
from typer.testing import CliRunner

from llmemf.__main__ import app, main
from llmemf.config import TrialConfig, build_config, parse_assignment
from llmemf.models import MODELS, model_class
from llmemf.models.overview import settings, valid_values


def call(*arguments, columns=160):
    result = CliRunner().invoke(app, list(arguments), env={"COLUMNS": str(columns)}, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.mark.parametrize("columns", [80, 200])
def test_the_list_names_every_system_with_status_and_needs(columns):
    printed = call("models", columns=columns)
    lines = {line.split()[0]: line for line in printed.splitlines() if line.split()}
    for name in MODELS:
        assert model_class(name).status.split()[0] in lines[name]
    assert "image, text" in lines["llm_emf"] and " - " in lines["c2dsr"]
    assert "pseudo-profile" in lines["lecdsr"]
    untrained = {name for name in MODELS if "no training" in lines[name]}
    assert untrained == {name for name in MODELS if model_class(name).closed_form}
    assert max(map(len, printed.splitlines()[:20])) <= columns


@pytest.mark.parametrize("name", sorted(MODELS))
def test_every_setting_stands_there_once_with_its_docstring(name):
    kind = model_class(name).config_class
    rows = settings(kind, name)
    assert sorted(row.name for row in rows) == sorted(kind.model_fields)
    assert all(row.text and row.valid for row in rows), [row.name for row in rows if not row.text]
    shared = [row.name for row in rows if row.shared]
    assert set(shared) <= set(TrialConfig.model_fields) and "seed" in shared
    printed = call("models", name)
    for row in rows:
        assert re.search(rf"^ {row.name}\s+{re.escape(row.default)[:12]}", printed, re.MULTILINE), row.name


@pytest.mark.parametrize("name", sorted(MODELS))
def test_defaults_can_be_typed_as_they_are_shown(name):
    kind = model_class(name).config_class
    values = dict(parse_assignment(f"{row.name}={row.default}") for row in settings(kind, name))
    found, default = build_config(kind, values).to_dict(), kind(model=name).to_dict()
    for key, value in default.items():
        assert found[key] == (pytest.approx(value, rel=1e-4) if isinstance(value, float) else value), key


def test_what_a_setting_takes():
    fields = model_class("llm_emf").config_class.model_fields
    assert valid_values(fields["alpha"]) == "number >= 0, <= 1"
    assert valid_values(fields["eval_lambda1"]) == "number >= 0 | null"
    assert valid_values(fields["modalities"]) == "some of id | image | text"
    assert valid_values(fields["positions"]) == "true | false"
    assert valid_values(fields["mixture"]) == "prob | logit"
    assert valid_values(fields["text_encoder"]) == "text"


def test_the_search_space_is_shown():
    printed = call("models", "lecdsr")
    assert "temperature: 0.3, 1, 3" in printed and "lr: 0.002, 0.005, 0.01" in printed
    assert "alpha, beta: simplex 0.1" in call("models", "llm_emf")


def test_an_unknown_name_offers_the_nearest(capsys):
    with pytest.raises(SystemExit) as left:
        main(["models", "sasrek"])
    assert left.value.code == 2
    assert capsys.readouterr().err == "error: unknown model 'sasrek': did you mean 'sasrec'?\n"
