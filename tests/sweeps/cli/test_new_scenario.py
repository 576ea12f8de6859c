"""A scenario file of one's own: written, found by its name, and described for editors and in the docs."""

import json
from pathlib import Path

import pytest
import yaml
from sweep_fakes import tiny_scenario
from typer.testing import CliRunner

from llmemf.errors import InputError, StorageError
from llmemf.models import model_class
from sweeps.cli.main import app
from sweeps.cli.new_scenario import SCHEMA, schema
from sweeps.core.options import Options
from sweeps.core.plan import plan_sweep
from sweeps.core.settings import ScenarioFile, checked_space, load_settings, scenario_files, space_keys

ROOT = Path(__file__).resolve().parents[3]


def new(*arguments):
    return CliRunner().invoke(app, ["new-scenario", "shop", *arguments], catch_exceptions=False)


@pytest.mark.parametrize("model", ["llm_emf", "sasrec", "popularity"])
def test_the_file_is_found_and_says_what_the_system_does_by_itself(project_folder, model):
    tiny_scenario("shop").save("data")
    before = plan_sweep(Options(scenario="shop", model=model))
    assert new("--model", model).exit_code == 0
    after = plan_sweep(Options(scenario="shop"))
    assert after.record.model == model and after.configs == before.configs and after.space.size == before.space.size
    same = ("search", "trials", "grid_points", "scheduler", "grace_period", "reduction_factor", "seed", "constraints")
    assert {key: getattr(after.record, key) for key in same} == {key: getattr(before.record, key) for key in same}
    assert any(str(project_folder / "data" / "shop.yaml") in notice for notice in after.notices)


def test_a_file_that_was_changed_is_not_replaced(project_folder):
    new()
    path = project_folder / "data" / "shop.yaml"
    path.write_text("trials: 7\n")
    with pytest.raises(InputError, match="shop.yaml exists"):
        new()
    tiny_scenario("shop").save("data")
    assert plan_sweep(Options(scenario="shop")).record.trials == 7 and path.read_text() == "trials: 7\n"
    assert new("--overwrite").exit_code == 0 and "trials: 40" in path.read_text()


def test_the_schema_knows_every_key_of_every_shipped_file(project_folder):
    new()
    found = json.loads((project_folder / "data" / SCHEMA).read_text())
    assert found == schema() and set(found["properties"]) == set(ScenarioFile.model_fields)
    for path in scenario_files(Path("nowhere")).values():
        values = yaml.safe_load(path.read_text())
        assert set(values) <= set(found["properties"])
        assert set(values["fixed"]) <= set(found["properties"]["fixed"]["properties"])
        single = [key for key in values["space"] if "," not in key]
        assert set(single) <= set(found["properties"]["space"]["properties"])


def test_the_docs_explain_every_key_and_their_examples_are_valid(tmp_path):
    page = (ROOT / "docs" / "scenarios.md").read_text()
    assert [key for key in ScenarioFile.model_fields if f"| `{key}` |" not in page] == []
    example = page.split("```yaml\n")[1].split("```")[0]
    (tmp_path / "shop.yaml").write_text(example)
    settings = load_settings(tmp_path / "shop.yaml")
    config = model_class(settings["model"]).config_class
    assert checked_space(config, settings["space"], where="shop") and set(space_keys(settings["space"])) >= {
        "lr",
        "alpha",
    }


def test_a_data_root_that_cannot_be_made_is_named(project_folder):
    (project_folder / "data").write_text("")
    with pytest.raises(StorageError, match="data"):
        new()


def test_who_replaces_a_shipped_file_is_told(project_folder):
    shipped = ROOT / "sweeps" / "scenarios" / "sample.yaml"
    words = ["new-scenario", "sample"]
    assert str(shipped) in CliRunner().invoke(app, words).output
    assert str(shipped) not in CliRunner().invoke(app, [*words, "--overwrite"]).output and "instead" not in new().output
