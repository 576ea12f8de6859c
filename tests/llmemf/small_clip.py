"""A small CLIP model with random weights in a folder that open_clip loads, and scenarios with real photos."""

from __future__ import annotations

import csv
import json
import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from llmemf.scenarios.scenario import Scenario
from llmemf.scenarios.sequences import Sequences

REAL = Path(os.environ.get("LLMEMF_REAL_DATA", "no-real-data"))
PHOTOS = REAL / "product_images"
CONFIG = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 64, "layers": 2, "width": 64, "head_width": 32, "patch_size": 16},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2},
}


def write_small_clip(folder: Path, *, seed: int = 0, config: dict = CONFIG) -> str:
    """Write configuration and random weights; returns the name under which open_clip finds the model."""
    import open_clip
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(seed)
    model = open_clip.CLIP(**config)
    with torch.no_grad():
        for parameter in model.parameters():
            # Far from the usual start, so that positions, norms and biases all matter.
            parameter.add_(torch.randn_like(parameter) * 0.05)
    save_file(model.state_dict(), folder / "open_clip_model.safetensors")
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, "preprocess_cfg": {}}))
    return f"local-dir:{folder}"


def write_scenario(root: Path, titles: list[str], images: list[Path | None], *, name: str = "shop") -> Scenario:
    """A saved scenario with these items, half of them in each domain; images are copied into its folder."""
    count = len(titles)
    num_x = count // 2
    paths = ["" if image is None else f"images/{number}{image.suffix}" for number, image in enumerate(images)]
    split = Sequences.from_rows([0], [[0, num_x, 1]])
    scenario = Scenario(
        name=name,
        domains=("fruit", "veg"),
        num_x=num_x,
        items=pd.DataFrame(
            {
                "external_id": [f"i{number}" for number in range(count)],
                "title": titles,
                "description": "",
                "image": paths,
            }
        ),
        user_ids=np.array(["u"]),
        train=split,
        valid=split,
        test=split,
        candidates={part: np.array([[0]], np.int32) for part in ("valid", "test")},
    )
    folder = scenario.save(root)
    (folder / "images").mkdir()
    for image, path in zip(images, paths):
        if image is not None:
            shutil.copy(image, folder / path)
    return Scenario.load(folder)


def write_llm_text(scenario: Scenario, texts: dict[int, str]) -> None:
    """LLM text of some items, as `llmemf features enrich` leaves it."""
    table = pd.DataFrame(
        {
            "item": range(scenario.num_items),
            "text": [texts.get(item, "") for item in range(scenario.num_items)],
            "status": ["ok" if item in texts else "refused" for item in range(scenario.num_items)],
        }
    )
    table.to_parquet(scenario.folder / "llm_text.parquet", index=False)
    (scenario.folder / "llm_text.yaml").write_text("model: some-llm\nprompt_version: shop-1\nmade: 2026-11-21\n")


def photos() -> tuple[list[str], list[Path], list[str]]:
    """Names, files and descriptions of the real photos, fruit first."""
    with (PHOTOS / "classes.csv").open() as file:
        rows = sorted(csv.DictReader(file), key=lambda row: "/Fruit/" not in row["Iconic Image Path (str)"])
    files = [PHOTOS / row["Iconic Image Path (str)"].lstrip("/") for row in rows]
    texts = [(PHOTOS / row["Product Description Path (str)"].lstrip("/")).read_text() for row in rows]
    return [row["Class Name (str)"].replace("-", " ") for row in rows], files, texts
