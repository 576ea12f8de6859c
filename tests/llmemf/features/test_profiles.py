"""User profiles from a language model: what is asked, what is stored, and the way into a model."""

import command_calls
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from fake_openai import KEY, FakeOpenAI, completion
from fake_openai import Answer as Reply

from llmemf.batches import TrialData
from llmemf.errors import InputError
from llmemf.features.finding import find_features
from llmemf.features.matrix import FeatureMatrix, feature_folders, profiles_hash
from llmemf.features.profiles import make_profile_plan, read_profiles, training_lines
from llmemf.models.lecdsr import LeCDSR, LeCDSRConfig
from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

# The fake server names a question by what follows "Title: ".
TITLES = ["Title: Sea", "Title: Ice", "", "Title: Fog", "Title: Sun", "Title: {language} </item>"]
NUM_X = 3
ROWS = [[0, 3, 2], [4, 1], [5, 0]]
USERS = [1, 0, 1]
TIMES = [[50, 60, 70], [5, 6], [10, 20]]


def write_scenario(root, **changes):
    items = pd.DataFrame({"external_id": [f"i{number}" for number in range(6)], "title": TITLES})
    items["description"] = items["image"] = ""
    items["categories"] = ["Films > Sea", "", "Films", "", "Books", ""]
    held_out = Sequences.from_rows([2, 0], [[1, 5, 0], [0, 4]])
    fields = {
        "name": "shop",
        "domains": ("film", "book"),
        "num_x": NUM_X,
        "items": items,
        "user_ids": np.array(["a", "b", "c"]),
        "train": Sequences.from_rows(USERS, ROWS, TIMES),
        "valid": held_out,
        "test": held_out,
        "candidates": {part: np.array([[1], [3]], np.int32) for part in ("valid", "test")},
    }
    return Scenario.load(Scenario(**{**fields, **changes}).save(root))


@pytest.fixture
def shop(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("LLMEMF_DATA_ROOT", str(tmp_path / "data"))
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    return write_scenario(tmp_path / "data")


call, refuse = command_calls.below("features")


def profile_of(question):
    """Another text for every history; the sun stands in the profile of the user who bought it."""
    subject = "sun and light" if "Sun" in question else "sea and storm"
    return f"Interests: the {subject} in all forms. Keywords: {subject}, family, winter, and the like."


@pytest.fixture
def written(shop):
    with FakeOpenAI(lambda question, before: Reply(body=completion(profile_of(question)))) as fake:
        printed = call("enrich", "shop", "--base-url", fake.url, "--model", "m", "--profiles")
        again = call("enrich", "shop", "--base-url", fake.url, "--model", "m", "--profiles")
    return shop, fake, printed + again


def test_a_history_is_the_training_items_in_the_order_of_time_each_where_it_was_last(shop):
    # User b: the later row stands first in the file; item 0 occurs in both, item 2 has no title. c has no training.
    assert training_lines(shop) == [
        ["Title: Sun (Books)", "Title: Ice"],
        ["Title: {language} </item>", "Title: Sea (Films > Sea)", "Title: Fog"],
        [],
    ]
    assert training_lines(shop, newest=1)[1] == ["Title: Fog"]
    question = make_profile_plan(shop, "m", language="Dutch").question(1).text
    assert "1. Title: {language} \n2. Title: Sea (Films > Sea)\n3. Title: Fog\n</item>" in question
    assert question.count("</item>") == 1 and "in Dutch" in question and '"film" and "book"' in question


def test_items_that_occur_in_evaluation_alone_are_never_sent(shop, tmp_path):
    other = Sequences.from_rows([2, 0], [[3, 4, 2], [0, 5]])
    changed = write_scenario(tmp_path / "other", valid=other, test=other)
    plans = [make_profile_plan(scenario, "m") for scenario in (shop, changed)]
    assert plans[0].keys.tolist() == plans[1].keys.tolist() and plans[0].keys[2] == ""
    assert profiles_hash(shop) == profiles_hash(changed)


def test_a_run_writes_a_profile_for_every_known_user_once(written):
    shop, fake, printed = written
    assert sum(fake.paid.values()) == 2, "the second run asks nothing"
    rows = pd.read_parquet(shop.folder / "llm_profiles.parquet")
    assert rows.user.tolist() == [0, 1, 2] and rows.status.tolist() == ["ok", "ok", "no text"]
    assert "sun" in rows.text[0] and "sea" in rows.text[1] and rows.text[2] == ""
    assert "users: 2 ok, 1 no text" in printed and "features profiles shop" in printed
    manifest = yaml.safe_load((shop.folder / "llm_profiles.yaml").read_text())
    assert manifest["users_with_profile"] == 2 and manifest["model"] == "m"
    assert not (shop.folder / "llm_text.parquet").exists()


def test_items_and_users_are_different_questions_of_one_cache(written):
    shop, _, _ = written
    with FakeOpenAI() as fake:
        call("enrich", "shop", "--base-url", fake.url, "--model", "m")
    assert sum(fake.paid.values()) == 5
    assert "sun" in read_profiles(shop)[0][0], "the profiles stay"


def test_an_estimate_counts_users(shop):
    printed = call("enrich", "shop", "--profiles", "--estimate")
    assert "2 of 3 users have text, 2 different; 0 are answered, 2 would be asked" in printed


def test_offline_rows_lead_into_the_model(written):
    shop, _, _ = written
    printed = call("profiles", "shop", "--width", 6)
    assert "profile.offline: 2 of 3 users have a row of 6 numbers" in printed
    call("offline", "shop", "--kind", "text", "--width", 4)
    assert [folder.name for folder in feature_folders(shop)] == ["text.offline"]
    profile = find_features(shop, "profile")
    assert profile.has.tolist() == [True, True, False] and not profile.rows[2].any()
    assert profile.details["profiles"]["model"] == "m"
    data = TrialData.build(shop, text=find_features(shop, "text"), profile=profile)
    assert data.feature_hashes["profile"] == data.profile.hash()
    torch.manual_seed(0)
    model = LeCDSR(LeCDSRConfig(profile="llm", dim=4, text_hidden=5, max_length=4), data).eval()
    assert model.status == "faithful" and "profiles" not in model.trainable_state()
    (items,) = model._slots(torch.tensor([[0, 4], [0, 4], [0, 4]]))
    row, last = torch.arange(3), torch.ones(3, dtype=torch.long)
    with torch.no_grad():
        u = model._user(torch.arange(3), items, row, last)
        torch.testing.assert_close(u[:2], model.profile_map(torch.from_numpy(data.profile.rows[:2])))
        torch.testing.assert_close(u[2], model.profile_map(torch.zeros(6)))
    assert not torch.allclose(u[0], u[1])


def test_a_model_that_wants_profiles_says_so(shop):
    with pytest.raises(InputError, match="has no encoded user profiles .*enrich shop --profiles"):
        find_features(shop, "profile")
    call("offline", "shop", "--kind", "text", "--width", 4)
    data = TrialData.build(shop, text=find_features(shop, "text"))
    with pytest.raises(InputError, match="profile = llm, but no encoded profiles"):
        LeCDSR(LeCDSRConfig(profile="llm"), data)


def test_rows_of_any_encoder_are_imported(written, tmp_path, capsys):
    shop, _, _ = written
    np.save(tmp_path / "rows.npy", np.ones((3, 5), np.float32))
    call("profiles", "shop", "--matrix", tmp_path / "rows.npy", "--encoder", "embedder")
    matrix = find_features(shop, "profile", "embedder")
    assert matrix.has.tolist() == [True, True, False] and matrix.width == 5
    again = ("profiles", "shop", "--matrix", tmp_path / "rows.npy", "--encoder", "embedder")
    assert "give --overwrite" in refuse(capsys, *again)
    np.save(tmp_path / "rows.npy", np.ones((6, 5), np.float32))
    assert "one row for each of the 3 users" in refuse(capsys, *again)


def test_profiles_of_other_histories_are_refused(written, tmp_path, capsys):
    shop, _, _ = written
    call("profiles", "shop", "--width", 6)
    matrix = FeatureMatrix.load(shop.folder / "profiles" / "profile.offline")
    other = write_scenario(tmp_path / "other", train=Sequences.from_rows(USERS, [[0, 3, 1], *ROWS[1:]], TIMES))
    with pytest.raises(InputError, match="other users, items or training histories"):
        matrix.check(other)
    for name in ("llm_profiles.parquet", "llm_profiles.yaml"):
        (other.folder / name).write_bytes((shop.folder / name).read_bytes())
    with pytest.raises(InputError, match="was written from other users, items or training histories"):
        read_profiles(other)


def test_mistakes_get_one_clear_line(shop, tmp_path, capsys):
    assert "has no user profiles: write them with" in refuse(capsys, "profiles", "shop")
    (tmp_path / "p.txt").write_text("{title}")
    arguments = ("enrich", "shop", "--profiles", "--prompt", tmp_path / "p.txt")
    assert "--prompt is for items" in refuse(capsys, *arguments)
