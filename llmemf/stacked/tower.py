"""The losses of K LLM-EMF trials in one pass: `llmemf.models.tower.Tower` with a leading dimension.

Shapes: K trials, B batch, L length, D width, N items, U items that a sampled step reads, M modalities, R packed rows,
T rows with a target.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from llmemf.batches import DeviceSequences, View
from llmemf.models.item_table import FrozenTable, IdTable
from llmemf.models.llm_emf import LLMEMF, LLMEMFConfig
from llmemf.models.tower import Tower
from llmemf.objective import SampledColumns, mixture_nll
from llmemf.stacked.encoders import Drops, Packing, StackedLayout, encode
from llmemf.stacked.objective import CACHED_ELEMENTS, stacked_mixture_nll
from llmemf.stacked.parameters import StackedParameters
from llmemf.training import Trainer

FEWEST_ROWS = 32
"""Where a chunk of all trials' logits would hold fewer rows of each, every trial's loss is computed on its own."""
PREFIX = "towers.0."


def module_groups(tower: Tower) -> list[list[str]]:
    """Encoders of one sequence and one width, which are computed together; only those that the loss reaches."""
    found: dict[tuple[str, int], list[str]] = {}
    for sequence in tower.loss_weights:
        for modality in tower.modalities:
            found.setdefault((sequence, tower.tables[modality].width), []).append(f"{sequence}_{modality}")
    return [[f"{PREFIX}encoders.{key}" for key in keys] for keys in found.values()]


def unreached_modules(tower: Tower) -> list[str]:
    reached = {name for group in module_groups(tower) for name in group}
    return [name for name in (f"{PREFIX}encoders.{key}" for key in tower.encoders) if name not in reached]


@dataclass(frozen=True)
class ItemVectors:
    """Item vectors of one step, per modality (K, U, D), or (U, D) where all trials share them.

    Attributes:
        inputs: as the encoders read them.
        outputs: unit vectors.
        place: (K, N + 1) row of every item that is read; None where all items stand in their order.
        draws: per range of items the (K, C) ids drawn out of it.
    """

    inputs: list[Tensor]
    outputs: list[Tensor]
    place: Tensor | None
    draws: dict[tuple[int, int], Tensor]

    def rows(self, ids: Tensor) -> Tensor:
        """Rows of the items; padding gets that of some item."""
        return ids if self.place is None else self.place.gather(1, ids)


class StackedTower:
    """K towers of one shape.

    Args:
        trainers: the trials.
        parameters: theirs, stacked.
    """

    def __init__(self, trainers: Sequence[Trainer], parameters: StackedParameters) -> None:
        self.trials, self.parameters = len(trainers), parameters
        towers = [_tower(trainer) for trainer in trainers]
        self.tower = towers[0]
        self.config: LLMEMFConfig = self.tower.config
        self.num_items, self.modalities = self.tower.num_items, self.tower.modalities
        self.rates = [trainer.config.dropout for trainer in trainers]
        self.kind = next(trainers[0].model.parameters()).dtype
        self.sequences = list(self.tower.loss_weights)
        weights = [[tower.loss_weights[s] for tower in towers] for s in self.sequences]
        self.loss_weights = dict(zip(self.sequences, torch.tensor(weights, dtype=self.kind)))
        self.log_weights = self._trained_or_stacked("head.log_weights", [tower.head.log_weights for tower in towers])
        self.log_scale = self._trained_or_stacked("head.log_scale", [tower.head.log_scale for tower in towers])
        masks = [table.has for table in self.tower.tables.values()]
        every = torch.ones(self.num_items, dtype=torch.bool)
        masked = any(mask is not None for mask in masks)
        self.has_NM = torch.stack([every if mask is None else mask for mask in masks], 1) if masked else None

    def _trained_or_stacked(self, name: str, own: Sequence[Tensor]) -> Tensor:
        leaf = self.parameters.single(PREFIX + name)
        return torch.stack([tensor.detach() for tensor in own]) if leaf is None else leaf

    def losses(self, sequences: DeviceSequences, index_KB: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """(K,) losses of one step.

        Args:
            sequences: the training split, which all trials share.
            index_KB: each trial's batch.
            generators: each trial's source of draws.
        """
        views = {s: _taken(sequences.views[s], index_KB) for s in self.sequences}
        layouts = {s: StackedLayout(view.items < self.num_items) for s, view in views.items()}
        draws = self._draws(generators)
        drops = self._drops(layouts, generators)
        vectors = self._item_vectors(views, draws)
        read = [
            _packed(view.items, layout.packing, self.num_items)
            for view, layout in zip(views.values(), layouts.values())
        ]
        embedded = self._embed(vectors, torch.cat(read, 1))
        sizes = [part.shape[1] for part in read]
        inputs = zip(*(rows.split(sizes, 1) for rows in embedded))
        total = torch.zeros(self.trials, dtype=self.kind)
        for (s, view), own in zip(views.items(), inputs):
            states = self._states(s, own, layouts[s], drops)
            row_weight = self.loss_weights[s] / index_KB.shape[1]
            total = total + self._sequence_loss(s, view, layouts[s], states, vectors, row_weight)
        return total

    def _spans(self) -> list[tuple[int, int]]:
        return sorted({span for s in self.sequences for span in self.tower._ranges(s)})

    def _draws(self, generators: Sequence[torch.Generator]) -> dict[tuple[int, int], Tensor]:
        count = self.tower.head.settings.sampled_negatives
        if not count:
            return {}
        drawn = [[torch.randint(*span, (count,), generator=g) for span in self._spans()] for g in generators]
        return {span: torch.stack(own) for span, own in zip(self._spans(), zip(*drawn))}

    def _drops(
        self, layouts: dict[str, StackedLayout], generators: Sequence[torch.Generator]
    ) -> dict[tuple[str, int], Drops]:
        """Per sequence and width what is dropped; empty where no trial drops anything."""
        if not any(self.rates):
            return {}
        config, made = self.config, {}
        for s, layout in layouts.items():
            for width, members in self._groups().items():
                made[s, width] = Drops(
                    self.rates, layout, groups=len(members), blocks=config.encoder_layers, heads=config.heads,
                    width=width, bare=config.encoder == "bare", kind=self.kind,
                )  # fmt: skip
        widths = [self.tower.tables[m].width for m in self.modalities]
        within = [self._groups()[width].index(m) for m, width in zip(self.modalities, widths)]
        for trial, generator in enumerate(generators):
            for s in layouts:
                for width, group in zip(widths, within):
                    made[s, width].draw(trial, group, generator)
        for drops in made.values():
            drops.close()
        return made

    def _groups(self) -> dict[int, list[str]]:
        """Modalities by the width of their encoders."""
        found: dict[int, list[str]] = {}
        for modality in self.modalities:
            found.setdefault(self.tower.tables[modality].width, []).append(modality)
        return found

    def _item_vectors(self, views: dict[str, View], draws: dict[tuple[int, int], Tensor]) -> ItemVectors:
        ids = place = None
        if draws:
            read = [part.flatten(1) for v in views.values() for part in (v.items, v.next_same, v.next_merged)]
            packing = Packing.of(self._flags(torch.cat([*read, *draws.values()], 1))[:, : self.num_items])
            ids = packing.places
            place = torch.zeros(self.trials, self.num_items + 1, dtype=torch.int64)
            columns = torch.arange(ids.shape[1]).expand_as(ids)
            # Behind the last real column all places are 0: item 0 must keep its own.
            place.scatter_(1, ids.where(packing.real, self.num_items), columns)
            place[:, self.num_items] = 0
        pairs = [self._table(m, table, ids) for m, table in self.tower.tables.items()]
        return ItemVectors([inputs for inputs, _ in pairs], [outputs for _, outputs in pairs], place, draws)

    def _flags(self, ids: Tensor) -> Tensor:
        """(K, N + 1) bool, whether each trial names the item."""
        return torch.zeros(self.trials, self.num_items + 1, dtype=torch.bool).scatter_(1, ids, True)

    def _table(self, modality: str, table: IdTable | FrozenTable, ids: Tensor | None) -> tuple[Tensor, Tensor]:
        """Inputs and outputs of one modality, as its table's `step_rows` makes them."""
        name = f"{PREFIX}head.tables.{modality}."
        if isinstance(table, IdTable):
            inputs = _looked_up(self.parameters.single(name + "input"), ids)
            output = self.parameters.single(name + "output")
            return inputs, F.normalize(inputs if output is None else _looked_up(output, ids), dim=-1)
        rows = table.rows if ids is None else F.embedding(ids, table.rows)
        present = (table.present if ids is None else table.present[ids]).unsqueeze(-1)
        if table.missing is not None:
            learned = F.normalize(self.parameters.single(name + "missing"), dim=1)[:, None]
            rows = torch.where(present, rows, learned)
        if table.projection is not None:
            rows = F.normalize(self._projected(name + "projection", rows), dim=-1)
        return rows * present if table.masked else rows, rows

    def _projected(self, name: str, rows: Tensor) -> Tensor:
        """(K, U, D) of (K, U, F) or shared (U, F) rows under each trial's own map."""
        if self.config.item_projection == "linear":
            return _mapped(rows, self.parameters.single(f"{name}.weight"))
        for number in (0, 2):
            weight, bias = (self.parameters.single(f"{name}.{number}.{part}") for part in ("weight", "bias"))
            rows = _mapped(rows if number == 0 else F.gelu(rows), weight) + bias[:, None]
        return rows

    def _embed(self, vectors: ItemVectors, ids_KR: Tensor) -> list[Tensor]:
        """Per modality (K, R, D) input vectors; zero at padding."""
        real = (ids_KR < self.num_items).unsqueeze(-1)
        rows = vectors.rows(ids_KR).clamp(max=self.num_items - 1)
        return [_looked_up(table, rows) * real for table in vectors.inputs]

    def _states(
        self, s: str, inputs: Sequence[Tensor], layout: StackedLayout, drops: dict[tuple[str, int], Drops]
    ) -> list[Tensor]:
        """Per modality (K, R, D) states of one sequence."""
        config, by_modality, found = self.config, dict(zip(self.modalities, inputs)), {}
        for width, members in self._groups().items():
            x = torch.stack([by_modality[m] for m in members], 1).flatten(0, 1)
            leaves = self.parameters.group(f"{PREFIX}encoders.{s}_{members[0]}")
            states = encode(
                x, leaves, layout, drops.get((s, width)), blocks=config.encoder_layers, heads=config.heads,
                bare=config.encoder == "bare",
            )  # fmt: skip
            found |= dict(zip(members, states.unflatten(0, (self.trials, len(members))).unbind(1)))
        return [found[m] for m in self.modalities]

    def _sequence_loss(
        self, s: str, view: View, layout: StackedLayout, states: list[Tensor], vectors: ItemVectors, row_weight: Tensor
    ) -> Tensor:
        """(K,) weighted losses of one sequence."""
        merged = s == "xy" or self.config.next_target == "merged"
        following = view.next_merged if merged else view.next_same
        counted = self.tower._counted((following < self.num_items).flatten(0, 1)).view_as(following)
        counted_KR = layout.packing.take(counted.flatten(1)) & layout.packing.real
        targets_KR = layout.packing.take(following.flatten(1))
        total = torch.zeros(self.trials, dtype=self.kind)
        for low, high in self.tower._ranges(s):
            packing = Packing.of(counted_KR & (targets_KR >= low) & (targets_KR < high))
            if not any(packing.counts):
                continue
            queries = [_looked_up(state, packing.places) for state in states]
            targets = torch.where(packing.real, packing.take(targets_KR), low)
            weights = packing.real * row_weight[:, None]
            total = total + self._nll(queries, targets, weights, packing.counts, (low, high), vectors, view.items)
        return total

    def _nll(
        self, queries: list[Tensor], targets: Tensor, row_weights: Tensor, counts: list[int], span: tuple[int, int],
        vectors: ItemVectors, exact: Tensor,
    ) -> Tensor:  # fmt: skip
        """(K,) weighted sums of -log P(target), each softmax over the items of the span."""
        low, high = span
        queries = [F.normalize(q, dim=-1) for q in queries]
        target_rows = [_looked_up(table, vectors.rows(targets)) for table in vectors.outputs]
        log_weights, scales = self._target_weights(targets), self._scales()
        if vectors.place is None:
            columns = expansion = None
            tables = [table[..., low:high, :] for table in vectors.outputs]
            present = [table.has if table.has is None else table.has[low:high] for table in self.tower.tables.values()]
        else:
            columns, expansion = self._sampled_columns(span, vectors.draws[span], exact)
            rows = vectors.rows(columns.clamp(min=0))
            tables = [_looked_up(table, rows) for table in vectors.outputs]
            present = [table.has if table.has is None else table.has[columns] for table in self.tower.tables.values()]
        if self.trials * tables[0].shape[-2] * FEWEST_ROWS <= CACHED_ELEMENTS:
            times = None if expansion is None else expansion.exp().to(self.kind)
            return stacked_mixture_nll(
                queries,
                tables,
                target_rows,
                log_weights,
                scales,
                row_weights,
                counts=[_times(times, mask, self.kind) for mask in present],
                target_is_column=columns is None,
                hits=None if columns is None else columns[:, None, :] == targets[:, :, None],
            )
        found = []
        for k, count in enumerate(counts):
            sampled = None if columns is None else SampledColumns(columns[k], expansion[k])
            found.append(
                mixture_nll(
                    [q[k, :count] for q in queries],
                    [table if table.dim() == 2 else table[k] for table in tables],
                    targets[k, :count] - (low if sampled is None else 0),
                    log_weights[k, :count],
                    scales[k],
                    row_weights[k, :count],
                    present=[mask if mask is None or mask.dim() == 1 else mask[k] for mask in present],
                    target_rows=None if sampled is None else [rows[k, :count] for rows in target_rows],
                    sampled=sampled,
                    chunk_elements=self.config.chunk_elements,
                )
            )
        return torch.stack(found)

    def _sampled_columns(self, span: tuple[int, int], draws: Tensor, exact: Tensor) -> tuple[Tensor, Tensor]:
        """(K, C) item ids of the columns, -1 where one only fills the table, and the log of how often each counts."""
        low, high = span
        flags = self._flags(exact.flatten(1))[:, low:high]
        packing = Packing.of(flags)
        share = torch.full(draws.shape, (high - low) / draws.shape[1], dtype=torch.float32).log_()
        share.masked_fill_(flags.gather(1, draws - low), -torch.inf)
        known = torch.zeros(packing.real.shape).masked_fill_(~packing.real, -torch.inf)
        ids = (packing.places + low).masked_fill(~packing.real, -1)
        return torch.cat([draws, ids], 1), torch.cat([share, known], 1)

    def _target_weights(self, targets: Tensor) -> Tensor:
        """(K, T, M) log mixture weights at the targets, renormalised where one lacks a modality."""
        weights = self.log_weights.log_softmax(1)[:, None].expand(-1, targets.shape[1], -1)
        if self.has_NM is None:
            return weights
        has = self.has_NM[targets]
        weights = torch.where(has, weights, -torch.inf)
        return weights - torch.where(has.any(2, keepdim=True), weights.logsumexp(2, keepdim=True), 0)

    def _scales(self) -> Tensor:
        """(K, M) inverse temperatures; a learned one is put back to its bound."""
        if self.config.scale != "fixed":
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(self.config.scale_max))
        return self.log_scale.exp().expand(-1, len(self.modalities))


def _tower(trainer: Trainer) -> Tower:
    model = trainer.model
    assert isinstance(model, LLMEMF) and len(model.towers) == 1
    return model.towers[0]


def _taken(view: View, index_KB: Tensor) -> View:
    return View(view.items[index_KB].long(), view.next_same[index_KB].long(), view.next_merged[index_KB].long())


def _packed(items_KBL: Tensor, packing: Packing, pad: int) -> Tensor:
    return packing.take(items_KBL.flatten(1)).masked_fill(~packing.real, pad)


def _looked_up(table: Tensor, rows_KR: Tensor | None) -> Tensor:
    """(K, R, D) rows of a (K, U, D) or shared (U, D) table; None takes it whole."""
    if rows_KR is None:
        return table
    if table.dim() == 2:
        return F.embedding(rows_KR, table)
    first = torch.arange(len(table))[:, None] * table.shape[1]
    return F.embedding(rows_KR + first, table.flatten(0, 1))


def _mapped(rows: Tensor, weight_KDF: Tensor) -> Tensor:
    """(K, U, D) products with each trial's own matrix; one matrix product where all trials share the rows."""
    if rows.dim() == 3:
        return torch.bmm(rows, weight_KDF.mT)
    return (rows @ weight_KDF.flatten(0, 1).T).unflatten(1, weight_KDF.shape[:2]).transpose(0, 1)


def _times(times: Tensor | None, present: Tensor | None, kind: torch.dtype) -> Tensor | None:
    """How often each column counts: as often as it stands for items, and not where it lacks the modality."""
    if present is None:
        return times
    return present.to(kind) if times is None else times * present
