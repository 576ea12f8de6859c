"""What counts as an image."""

from collections import Counter

import numpy as np
import pytest
from image_server import picture

from llmemf.features.image_content import NoImage, check_image
from llmemf.features.image_limits import ImageLimits


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "WEBP", "BMP"])
def test_kinds_and_limits(kind):
    facts = check_image(picture(kind, (50, 40)), ImageLimits(1, 0.002, 40))
    assert (facts.width, facts.height) == (50, 40)
    with pytest.raises(NoImage, match="too many pixels"):
        check_image(picture(kind, (50, 40)), ImageLimits(1, 0.001999, 40))
    with pytest.raises(NoImage, match="too small"):
        check_image(picture(kind, (50, 40)), ImageLimits(1, 0.002, 41))


def test_damage_anywhere_is_a_reason_and_never_a_crash():
    rng = np.random.default_rng(0)
    verdicts = Counter()
    for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP"):
        whole = picture(kind)
        for _ in range(30):
            damaged = bytearray(whole)
            for place in rng.integers(0, len(whole), 8):
                damaged[place] = rng.integers(256)
            try:
                check_image(bytes(damaged[: rng.integers(1, len(whole))]), ImageLimits(1, 0.01, 1))
                verdicts["ok"] += 1
            except NoImage as error:
                verdicts[str(error)] += 1
    assert sum(verdicts.values()) == 150 and verdicts["broken image"] > 50
