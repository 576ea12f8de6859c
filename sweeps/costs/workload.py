"""The sizes of one trial of LLM-EMF that decide what it costs, read from its configuration and data."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from llmemf.batches import TrialData
    from llmemf.models.llm_emf import LLMEMFConfig
    from llmemf.scenarios.scenario import Sequences

FP32 = 4


@dataclass(frozen=True)
class View:
    """One sequence (S^X, S^Y or S^{X+Y}) of a mean training row.

    Attributes:
        inputs, targets: real ones per training row.
        columns: width of the padded table.
        span: items of the softmax of its loss.
        trained: how many losses have it (0 where its weight is 0).
        scored: per domain of the target, items of the softmax of its score, 0 where it has no part in the score.
        history: per domain of the target, real inputs of a validation case.
    """

    inputs: float
    targets: float
    columns: int
    span: int
    trained: int
    scored: tuple[int, int]
    history: tuple[float, float]


@dataclass(frozen=True)
class Workload:
    """What one trial works on.

    Attributes:
        items: of X and of Y.
        rows: training rows; a long history is several.
        cases: validation cases per epoch with a target in X and in Y.
        kept_cases: validation cases in memory.
        candidates: stored ones per case.
        ids: width of the id table, 0 without one.
        id_tables: 1, or 2 where inputs and outputs are untied, times the separate models.
        frozen: widths of the frozen tables.
        projected: width that a trained map gives them, 0 without one.
        row_bytes: of one number in a frozen table: 4, or 2 where it is packed in half precision.
        mapped: frozen tables are read from their files.
        layers, batch, eval_batch, negatives: settings; `negatives` is 0 for the exact objective.
        chunk, score_chunk, score_rows: numbers held at once in the objective and in scoring, cases scored at once at least.
        chunk_rows: rows of a chunk of the objective in half precision, on a GPU.
        products: matrix products of width x width per row and layer of an encoder.
        models: separate ones, each with its encoders (`loss_roles: per_target` has two).
        best: sets of best weights that are kept.
    """

    items: tuple[int, int]
    rows: float
    views: tuple[View, ...]
    cases: tuple[float, float]
    kept_cases: float
    candidates: int
    ids: int
    id_tables: int
    frozen: tuple[int, ...]
    projected: int
    row_bytes: int
    mapped: bool
    layers: int
    batch: int
    eval_batch: int
    negatives: int
    chunk: int
    chunk_rows: int
    score_chunk: int
    score_rows: int
    products: int = 6
    models: int = 1
    best: int = 1

    @property
    def num_items(self) -> int:
        return sum(self.items)

    @property
    def steps(self) -> float:
        return self.rows / self.batch

    @property
    def widths(self) -> list[int]:
        """Of every modality's vectors."""
        frozen = [self.projected or width for width in self.frozen]
        return ([self.ids] if self.ids else []) + frozen

    @property
    def trained_widths(self) -> list[int]:
        """Of the tables that get a gradient."""
        return ([self.ids] if self.ids else []) + [self.projected] * len(self.frozen) * (self.projected > 0)

    def grown(self, factor: float, what: str) -> Workload:
        """The same with so many times the `items`, or the `users` (rows and cases)."""
        if what == "items":
            items = tuple(round(factor * count) for count in self.items)
            views = tuple(
                replace(
                    view,
                    span=round(factor * view.span),
                    scored=tuple(round(factor * count) for count in view.scored),
                )
                for view in self.views
            )
            return replace(self, items=items, views=views)
        cases = tuple(factor * count for count in self.cases)
        return replace(self, rows=factor * self.rows, cases=cases, kept_cases=factor * self.kept_cases)


def workload(config: LLMEMFConfig, data: TrialData) -> Workload:
    """The sizes of a trial."""
    import numpy as np

    from llmemf.models import tower
    from llmemf.objective import CHUNK_ELEMENTS
    from llmemf.objective_half import CHUNK_ROWS

    offsets, in_x = data.train.offsets, data.train.items < data.num_x
    lengths, of_x = _lengths(data.train, data.num_x)
    last_x = in_x[offsets[1:] - 1]
    rows = float(np.maximum(1, -(-(lengths - 1) // config.max_length)).sum())
    counts = {"x": (of_x, last_x), "y": (lengths - of_x, ~last_x), "xy": (lengths, np.ones(len(lengths), bool))}
    sizes = {"x": data.num_x, "y": data.num_items - data.num_x, "xy": data.num_items}
    loss_weights = [config.loss_weights(first) for first in config.towers()]
    score_weights = [config.score_weights(domain) for domain in (0, 1)]
    to_y = data.valid.targets >= data.num_x
    of_y = int(to_y.sum())
    held = _histories(data, config.max_length)
    views = []
    for name, (items, ends) in counts.items():
        over_all = config.next_target == "merged" if name != "xy" else config.merged_softmax != "target_items"
        inputs = items - ends
        scored = []
        for domain, own in enumerate(("x", "y")):
            everything = name == "xy" and config.merged_softmax != "target_items"
            everything |= name not in ("xy", own) and config.cross_softmax == "all_items"
            wanted = sizes["xy" if everything or (name != "xy" and config.next_target == "merged") else own]
            scored.append(wanted if name in score_weights[domain] else 0)
        views.append(
            View(
                inputs=float(inputs.sum()) / rows,
                targets=float(np.maximum(0, items - 1).sum()) / rows,
                columns=int(min(config.max_length, inputs.max(initial=1))),
                span=sizes["xy"] if over_all else (sizes[name] if name != "xy" else data.num_items // 2),
                trained=sum(name in weights for weights in loss_weights),
                scored=(scored[0], scored[1]),
                history=tuple(
                    float(held[name][of_domain].mean()) if of_domain.any() else 0.0 for of_domain in (~to_y, to_y)
                ),
            )
        )
    part = min(1.0, config.valid_cases / max(1, len(data.valid))) if config.valid_cases else 1.0
    chosen = [m for m in config.modalities if config.weights()[m] > 0 or config.learn_weights]
    matrices = [getattr(data, m) for m in chosen if m != "id"]
    return Workload(
        items=(sizes["x"], sizes["y"]),
        rows=rows,
        views=tuple(views),
        cases=(part * (len(data.valid) - of_y), part * of_y),
        kept_cases=len(data.valid),
        candidates=data.valid_candidates.shape[1],
        ids=config.id_dim if "id" in chosen else 0,
        id_tables=(1 if config.tied_ids else 2) * len(config.towers()),
        frozen=tuple(matrix.width for matrix in matrices),
        projected=config.projection_dim if config.item_projection != "none" and matrices else 0,
        row_bytes=max((matrix.rows.itemsize for matrix in matrices), default=FP32),
        mapped=all(matrix.packed for matrix in matrices),
        layers=config.encoder_layers,
        batch=min(config.batch_size, max(1, round(rows))),
        eval_batch=config.eval_batch_size,
        negatives=config.sampled_negatives if config.objective == "sampled" else 0,
        chunk=config.chunk_elements or CHUNK_ELEMENTS,
        chunk_rows=CHUNK_ROWS,
        score_chunk=tower.SCORE_ELEMENTS,
        score_rows=tower.SCORE_ROWS,
        products=3 if config.encoder == "bare" else 6,
        models=len(config.towers()),
        best=2 if config.selection == "per_domain" else 1,
    )


def _lengths(sequences: Sequences, num_x: int) -> tuple[np.ndarray, np.ndarray]:
    """Items of each sequence, and those of X among them."""
    import numpy as np

    up_to = np.concatenate([[0], np.cumsum(sequences.items < num_x)])
    return np.diff(sequences.offsets), np.diff(up_to[sequences.offsets])


def _histories(data: TrialData, max_length: int) -> dict[str, np.ndarray]:
    """By view, the inputs of each validation case."""
    import numpy as np

    lengths, of_x = _lengths(data.valid, data.num_x)
    of_x = of_x - (data.valid.targets < data.num_x)
    found = {"x": of_x, "y": lengths - 1 - of_x, "xy": lengths - 1}
    return {name: np.minimum(count, max_length) for name, count in found.items()}
