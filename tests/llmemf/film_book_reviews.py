"""Reviews of films and books whose scenario was worked out by hand; several readers must arrive at it."""

from __future__ import annotations

import numpy as np

from llmemf.scenarios.audit import audit
from llmemf.scenarios.reader_options import PreparationOptions
from llmemf.scenarios.scenario import Scenario

DAY = 86400
START = 1_262_304_000
"""2010-01-01."""
ANN, BOB, CID, DAN, EVE = (f"A0000000{name}" for name in ("ANN9", "BOB9", "CID9", "DAN9", "EVE9"))
M1, M2, M3, M4, M5 = (f"B0000000M{number}" for number in range(1, 6))
B1, B2, B3 = (f"00000000B{number}" for number in range(1, 4))

# (user, item, day). Within 10 days, 3 to 4 items, one of each domain at least:
#   ann  M1 B1 M2 B2 | M3 B3 M4      bob  M1 B1 M2 | B2 M3 B3      cid  B3 M1 B1 M4
FILMS = [
    (ANN, M1, 0),
    (ANN, M1, 0),  # the same review twice
    (DAN, M1, 0),  # no books
    (ANN, M2, 2),
    (BOB, M1, 5),
    (BOB, M2, 7),
    (CID, M1, 11),
    (CID, M4, 13),
    (BOB, M1, 30),  # again: the first counts
    (ANN, M3, 40),
    (ANN, M4, 42),
    (ANN, M5, 43),  # too rare: dan does not count
    (DAN, M5, 44),
    (BOB, M3, 51),
]
BOOKS = [
    (EVE, B1, 0),  # no films
    (ANN, B1, 1),
    (ANN, B2, 3),
    (BOB, B1, 6),
    (CID, B3, 10),
    (CID, B1, 12),
    (ANN, B3, 41),
    (BOB, B2, 50),
    (BOB, B3, 52),
    (CID, B2, 200),  # alone: in no window
]
OPTIONS = PreparationOptions(
    min_user=4,
    min_item=2,
    min_per_domain=1,
    min_length=3,
    max_length=4,
    max_days=10,
    split="timeline",
    eval_share=0.2,
    max_bad_lines=0.4,
    candidates=2,
)
# Items: M1..M4 are 0..3, B1..B3 are 4..6. Users: ann 0, bob 1, cid 2.
TRAIN = ([0, 1, 2], [[0, 4, 1, 5], [0, 4, 1], [6, 0, 4, 3]], [[0, 1, 2, 3], [5, 6, 7], [10, 11, 12, 13]])
VALID = ([0], [[2, 6, 3]], [[40, 41, 42]])
TEST = ([1], [[5, 2, 6]], [[50, 51, 52]])


def at(day: int) -> int:
    return START + day * DAY


DROPPED = {
    "item is also in X": (0, 0),
    "user of one domain alone": (2, 1),
    "same review twice": (1, 0),
    "item taken again, the first counts": (1, 0),
    "too few interactions": (1, 0),
    "in no window": (0, 1),
}


def check(scenario: Scenario, texts: dict[str, tuple[str, str, str, str]]) -> None:
    """The scenario of the file's head; `texts` by external id: title, description, categories, image."""
    scenario.validate()
    assert (scenario.domains, scenario.num_x) == (("film", "book"), 4)
    assert scenario.user_ids.tolist() == [ANN, BOB, CID]
    assert scenario.items.external_id.tolist() == [M1, M2, M3, M4, B1, B2, B3]
    for name, (users, rows, days) in (("train", TRAIN), ("valid", VALID), ("test", TEST)):
        sequences = scenario.split(name)
        order = np.argsort(sequences.users, kind="stable").tolist()
        assert sequences.users[order].tolist() == users, name
        assert [sequences.row(index).tolist() for index in order] == rows, name
        times = [sequences.times[sequences.offsets[i] : sequences.offsets[i + 1]].tolist() for i in order]
        assert times == [[at(day) for day in row] for row in days], name
    assert scenario.candidates["test"].tolist() in ([[4, 5]], [[5, 4]])
    assert scenario.candidates["valid"].shape == (1, 2)
    nothing = ("", "", "", "")
    actual = dict(zip(scenario.items.external_id, scenario.items.drop(columns="external_id").to_dict("records")))
    for item in scenario.items.external_id:
        expected = dict(zip(("title", "description", "categories", "image"), texts.get(item, nothing)))
        assert actual[item] == expected, item
    assert audit(scenario).leaks == []
