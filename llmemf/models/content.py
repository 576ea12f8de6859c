"""Controls in the place of frozen features: width and norms stay, the content goes, to measure how much of a gain is content.

A modality adds parameters, encoders and a term of the mixture besides what the features say. Noise in their place keeps
all of that and says nothing; rows shuffled between the items of a domain keep even the distribution of the features, and
with it what tells the domains apart, and break only the bond between an item and its own row.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import numpy as np

from llmemf.features.matrix import FeatureMatrix

Content = Literal["real", "noise", "shuffled"]


def with_content(features: FeatureMatrix, content: Content, *, num_x: int, seed: int) -> FeatureMatrix:
    """The features as they are, or a control in their place; which items have some never changes.

    Args:
        features: (N, D) rows; zero where an item has none.
        content: `real` returns them untouched; `noise` draws directions uniformly and keeps each row's norm; `shuffled`
            permutes the rows among the items of a domain that have one.
        num_x: number of items of domain X.
        seed: of the draws; image and text of a trial are drawn apart.
    """
    if content == "real":
        return features
    kind = {"text": 0, "image": 1}.get(features.kind, 2)
    rng = np.random.default_rng([seed, kind])
    rows, has = np.array(features.rows), np.asarray(features.has)
    if content == "noise":
        noise = rng.standard_normal(rows.shape, dtype=np.float32)
        norms = np.linalg.norm(rows, axis=1, keepdims=True)
        rows = (noise * (norms / np.linalg.norm(noise, axis=1, keepdims=True))).astype(rows.dtype)
        rows[~has] = 0
    else:
        for low, high in ((0, num_x), (num_x, len(rows))):
            items = low + np.flatnonzero(has[low:high])
            rows[items] = rows[rng.permutation(items)]
    return replace(features, rows=rows)
