"""What a reader of a sweep's numbers is told."""

from __future__ import annotations

from llmemf.models.back_off import BackOffConfig
from llmemf.models.llm_emf_config import LLMEMFConfig
from sweeps.core.descriptions import COMPONENTS, caveats_of


def test_every_component_of_the_score_has_a_name() -> None:
    own = BackOffConfig.model_fields.keys() - BackOffConfig.__base__.model_fields.keys()  # type: ignore[union-attr]
    assert {key for key in own if key.endswith("_weight")} == COMPONENTS.keys()


def test_parts_beside_the_score_of_the_paper_are_named() -> None:
    plain = {key: field.default for key, field in LLMEMFConfig.model_fields.items()}
    assert caveats_of("movie_book", plain, ["full"], {}, 1) == []
    (note,) = caveats_of("movie_book", {**plain, "neighbour_weight": 0.3, "text_weight": 1.0}, ["full"], {}, 1)
    assert "neighbours, likeness of texts" in note
