"""The encoders of LLM-EMF: one per sequence and modality over the item tables, with their losses and scores (eqs. 4-12).

Shapes: B batch, L length, D width, N items, n items of one domain, M modalities, R rows with a target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from llmemf.batches import VIEWS, Batch, DeviceSequences, SequenceView, TrialData
from llmemf.errors import InputError
from llmemf.features.matrix import FeatureMatrix
from llmemf.models.attention import SequenceEncoder
from llmemf.models.back_off import BackOff
from llmemf.models.columns import at_last
from llmemf.models.content import with_content
from llmemf.models.item_table import FrozenTable, IdTable, StepRows
from llmemf.models.llm_emf_config import MODALITIES, LLMEMFConfig
from llmemf.models.mixture import MixtureHead, Term

ROW_MULTIPLE = 128
"""The number of rows of a padded step is a multiple of this, so that shapes repeat from epoch to epoch."""


class LLMEMFEncoders(nn.Module):
    """Nine encoders over the item tables, with their losses and scores.

    Args:
        config: settings of LLM-EMF.
        data: features and numbers of items.
        first: the domain with weight 1 in the loss, "x" or "y" (eq. 10).
    """

    def __init__(self, config: LLMEMFConfig, data: TrialData, first: str) -> None:
        super().__init__()
        self.config, self.num_x, self.num_items = config, data.num_x, data.num_items
        self.domains = [(0, self.num_x), (self.num_x, self.num_items)]
        weights = config.weights()
        self.modalities = [m for m in MODALITIES if m in weights and (weights[m] > 0 or config.learn_weights)]
        self.sequences = [s for s in VIEWS if s in config.sequences]
        self.tables: dict[str, IdTable | FrozenTable] = {m: self._table(m, data) for m in self.modalities}
        self.head = MixtureHead(self.tables, weights, config)
        self.encoders = nn.ModuleDict()
        self.empty = nn.ParameterDict()
        for s in self.sequences:
            for m in self.modalities:
                if self._encoder_key(s, m) not in self.encoders:
                    self.encoders[self._encoder_key(s, m)] = self._encoder(self.tables[m].width)
                if config.empty_sequence == "learned" and s != "xy":
                    self.empty[f"{s}_{m}"] = nn.Parameter(torch.empty(self.tables[m].width).normal_(0, 0.02))
        self.loss_weights = config.loss_weights(first)
        text = self._features("text", data) if config.text_weight else None
        self.back_off = BackOff(config, data, text) if config.backs_off() else None
        self.row_counts: dict[tuple[str, int], int] = {}

    def _table(self, modality: str, data: TrialData) -> IdTable | FrozenTable:
        config = self.config
        if modality == "id":
            return IdTable(self.num_items, config.id_dim, tied=config.tied_ids, unit=config.similarity == "cosine")
        return FrozenTable(
            self._features(modality, data),
            self.num_x,
            projection=config.item_projection,
            width=config.projection_dim,
            missing=config.missing,
        )

    def _features(self, modality: str, data: TrialData) -> FeatureMatrix:
        """Frozen features as the configuration wants them."""
        config, features = self.config, getattr(data, modality)
        if features is None:
            raise InputError(
                f"modality {modality!r} is wanted but its features were not given: leave it out or add them"
            )
        if not features.has.any():
            raise InputError(f"no item has the modality {modality!r}: leave it out with --set modalities=...")
        content = {"text": config.text_content, "image": config.image_content}[modality]
        return with_content(features, content, num_x=self.num_x, seed=config.seed)

    def _encoder(self, width: int) -> SequenceEncoder:
        config = self.config
        if width % config.heads:
            raise InputError(f"heads = {config.heads} does not divide the width {width} of a modality")
        return SequenceEncoder(
            width,
            config.max_length,
            layers=config.encoder_layers,
            heads=config.heads,
            dropout=config.dropout,
            bare=config.encoder == "bare",
            positions=config.positions,
            from_newest=config.position_origin == "newest",
        )

    def _encoder_key(self, sequence: str, modality: str) -> str:
        keys = {"none": f"{sequence}_{modality}", "sequences": modality, "modalities": sequence}
        return keys[self.config.share_encoders]

    def states(self, real_BL: Tensor, sequence: str, inputs: Sequence[Tensor]) -> list[Tensor]:
        """Per modality (B, L, D_m) states H_m^s of one sequence (eq. 4) from the (B, L, D_m) vectors of its items."""
        return [self.encoders[self._encoder_key(sequence, m)](x, real_BL) for m, x in zip(self.modalities, inputs)]

    def count_rows(self, sequences: DeviceSequences, order: Tensor, batch_size: int) -> None:
        """Count the rows with a target in the largest batch of an epoch; every later step is padded to that number.

        The host then never waits for the device to tell how many rows a batch has, and shapes repeat. Nothing else changes.

        Args:
            order: (S,) order in which the sequences will come.
        """
        batch = torch.arange(len(order), device=order.device) // batch_size
        most = {}
        for s in self.loss_weights:
            following = self._following(sequences.views[s], s)
            counted = self._counted(following < self.num_items)
            for low, high in self._target_ranges(s):
                rows = (counted & (following >= low) & (following < high)).sum(1)[order]
                sums = rows.new_zeros(-(-len(order) // batch_size)).index_add_(0, batch, rows)
                most[s, low] = sums.max()
        for key, count in zip(most, torch.stack(list(most.values())).tolist()):
            padded = -(-count // ROW_MULTIPLE) * ROW_MULTIPLE
            self.row_counts[key] = max(self.row_counts.get(key, 0), padded)

    def training_loss(self, batch: Batch) -> Tensor:
        """Weighted sum of the three sequences' losses (eqs. 9, 10)."""
        summed = self.config.fusion == "states"
        views = {s: batch.views[s] for s in (VIEWS if summed else self.loss_weights)}
        read = torch.cat([part.flatten() for v in views.values() for part in (v.items, v.next_same, v.next_merged)])
        spans = {span for s in views for span in self._ranges(s)}
        step = self.head.step_rows(read, spans.union(self.domains) if summed else spans)
        # One look-up for all sequences: each further one would be a further gradient of the table's size.
        embedded = step.embed(torch.cat([view.items.flatten() for view in views.values()]))
        sizes = [view.items.numel() for view in views.values()]
        inputs = {
            s: [x.view(*view.items.shape, -1) for x in own]
            for (s, view), own in zip(views.items(), zip(*(vectors.split(sizes) for vectors in embedded)))
        }
        states = {s: self.states(view.items < self.num_items, s, inputs[s]) for s, view in views.items()}
        if summed:
            weights = [self.loss_weights.get(name, 0.0) for name in "xy"]
            losses = [self._summed_loss(batch, domain, step, states) for domain in (0, 1)]
            return torch.stack([w * loss / len(batch) for w, loss in zip(weights, losses)]).sum()
        terms = [
            weight * self._sequence_loss(views[s], s, step, states[s]) / len(batch)
            for s, weight in self.loss_weights.items()
        ]
        return torch.stack(terms).sum()

    def _summed_loss(self, batch: Batch, domain: int, step: StepRows, states: Mapping[str, Sequence[Tensor]]) -> Tensor:
        """Sum of -log P(i) over the targets i of a domain, the softmax running over that domain (`fusion: states`).

        The query is the state of S^{X+Y} before i plus that of the domain's own latest item before it.
        """
        merged, name = batch.views["xy"], "xy"[domain]
        low, high = self.domains[domain]
        passed = ((merged.items >= low) & (merged.items < high)).cumsum(1)
        wanted = (merged.next_merged >= low) & (merged.next_merged < high)
        row, column = wanted.nonzero(as_tuple=True)
        # In the domain's view, padded on the left, the latest item stands so far from the end as items come after it.
        place = states[name][0].shape[1] - 1 - (passed[:, -1:] - passed)[row, column]
        latest = [state[row, place.clamp(min=0)] for state in states[name]]
        exists = (passed > 0)[row, column].unsqueeze(1)
        queries = [_at_least_single(whole[row, column] + own * exists) for whole, own in zip(states["xy"], latest)]
        targets = merged.next_merged[row, column]
        with torch.autocast(targets.device.type, enabled=False):
            return self.head.nll(queries, targets, low, high, step, merged.items)

    def _over_all(self, sequence: str) -> bool:
        """Whether the softmax of a sequence runs over the items of both domains, in the loss and for its own domain's score."""
        if sequence == "xy":
            return self.config.merged_softmax != "target_items"
        return self.config.next_target == "merged"

    def _ranges(self, sequence: str) -> list[tuple[int, int]]:
        """(low, high) of the items of each softmax in a sequence's loss."""
        return [(0, self.num_items)] if self._over_all(sequence) else self.domains

    def _target_ranges(self, sequence: str) -> list[tuple[int, int]]:
        """Those of `_ranges` in which a target of the sequence can lie."""
        if sequence == "xy" or self._over_all(sequence):
            return self._ranges(sequence)
        return [self.domains["xy".index(sequence)]]

    def _following(self, view: SequenceView, sequence: str) -> Tensor:
        """(B, L) target at every position of a sequence, padding where there is none."""
        merged = sequence == "xy" or self.config.next_target == "merged"
        return view.next_merged if merged else view.next_same

    def _learns_empty(self, sequence: str) -> bool:
        return f"{sequence}_{self.modalities[0]}" in self.empty

    def _sequence_loss(self, view: SequenceView, sequence: str, step: StepRows, states: Sequence[Tensor]) -> Tensor:
        """L^s: sum of -log P^s(next item) over the counted positions (eq. 9).

        Args:
            states: per modality (B, L, D_m).
        """
        following = self._following(view, sequence)
        counted, terms = self._counted(following < self.num_items), []
        for low, high in self._target_ranges(sequence):
            wanted = (counted & (following >= low) & (following < high)).flatten()
            places, weights = _places(wanted, self.row_counts.get((sequence, low)))
            targets = following.flatten()[places]
            queries = [_at_least_single(state.flatten(0, 1)[places]) for state in states]
            if self._learns_empty(sequence):
                real = view.items < self.num_items
                first = view.items.gather(1, real.int().argmax(1, keepdim=True)).squeeze(1)
                inside = real.any(1) & (first >= low) & (first < high)
                starts, start_weights = _places(inside, None if weights is None else len(first))
                targets = torch.cat([targets, first[starts]])
                learned = [self.empty[f"{sequence}_{m}"].expand(len(starts), -1) for m in self.modalities]
                queries = [torch.cat(pair) for pair in zip(queries, learned)]
                if weights is not None and start_weights is not None:
                    weights = torch.cat([weights, start_weights])
            if weights is not None:  # a row without weight may have any target of the range
                targets = torch.where(weights > 0, targets, low)
            with torch.autocast(targets.device.type, enabled=False):
                terms.append(self.head.nll(queries, targets, low, high, step, view.items, weights))
        return torch.stack(terms).sum()

    def _counted(self, valid_BL: Tensor) -> Tensor:
        if self.config.loss_positions == "all":
            return valid_BL
        from_end = valid_BL.flip(1).cumsum(1).flip(1)
        return valid_BL & (from_end <= (1 if self.config.loss_positions == "last" else 10))

    def score_all(self, batch: Batch, domain: int) -> Tensor:
        """(B, n) log P (eq. 11) of every item of the domain, given the histories of the batch."""
        wanted = slice(*self.domains[domain])
        own = "xy"[domain]
        summed = self.config.fusion == "states"
        weights = {own: 1.0, "xy": 1.0} if summed else self.config.score_weights(domain)
        queries, missing = {}, {}
        tables = list(zip(self.tables.values(), self.head.scoring_rows()))
        for s in weights:
            items = batch.views[s].items
            real = items < self.num_items
            states = self.states(real, s, [table.input_rows(items, rows) for table, rows in tables])
            # In the aligned layout the last column may be the other domain's.
            queries[s] = [at_last(state, real) for state in states]
            missing[s] = empty = ~real.any(1)
            if self._learns_empty(s):
                missing[s] = torch.zeros_like(empty)
                learned = [self.empty[f"{s}_{m}"] for m in self.modalities]
                queries[s] = [torch.where(empty[:, None], e, q) for e, q in zip(learned, queries[s])]
        if summed:
            present = ~missing[own].unsqueeze(1)
            queries = {own: [whole + q * present for whole, q in zip(queries["xy"], queries[own])]}
            weights, missing = {own: 1.0}, {own: missing["xy"]}
        score = torch.zeros(len(batch), wanted.stop - wanted.start, dtype=self.head.scoring_type(), device=empty.device)
        terms = {
            s: Term(queries[s], self._normaliser(s, domain, wanted), (~missing[s]).to(score.dtype) * weight)
            for s, weight in weights.items()
        }
        if self.config.merged_softmax == "renormalise" and "xy" in terms:
            self._add_renormalised(score, terms.pop("xy"), wanted)
        if terms:
            self.head.add_probabilities(score, list(terms.values()), wanted)
        if self.back_off is not None:
            self.back_off.add_to(score, batch, domain)
        return score.log_()

    def _normaliser(self, sequence: str, domain: int, wanted: slice) -> slice:
        """The items over which the softmaxes of a sequence's term run in the score of a domain."""
        crosses = sequence == "yx"[domain] and self.config.cross_softmax == "all_items"
        return slice(0, self.num_items) if crosses or self._over_all(sequence) else wanted

    def _add_renormalised(self, score: Tensor, term: Term, wanted: slice) -> None:
        """Add a term whose probabilities are divided by their sum over the wanted items."""
        merged = torch.zeros_like(score)
        self.head.add_probabilities(merged, [term._replace(factor=torch.ones_like(term.factor))], wanted)
        total = merged.sum(1).clamp(min=torch.finfo(merged.dtype).tiny)
        score.addcmul_(merged, (term.factor / total)[:, None])


def _at_least_single(x: Tensor) -> Tensor:
    return x.to(torch.promote_types(x.dtype, torch.float32))


def _places(wanted: Tensor, count: int | None) -> tuple[Tensor, Tensor | None]:
    """Places of a flat mask that are True, in their order, and the weight of each row.

    Args:
        wanted: (P,) bool.
        count: rows that are wanted: fewer places are followed by place 0 with weight 0, more make every weight NaN, so that no
            row is lost in silence; None for as many rows as there are places, which the host has to wait for.

    Returns:
        (R,) places, and their (R,) weights in fp32; None where all are 1.
    """
    if count is None:
        return wanted.nonzero().squeeze(1), None
    rank = wanted.cumsum(0)
    slot = torch.where(wanted & (rank <= count), rank - 1, count)
    every = torch.arange(len(wanted), device=wanted.device)
    places = every.new_zeros(count + 1).scatter_(0, slot, every)[:count]
    real = torch.arange(count, device=wanted.device) < rank[-1]
    return torch.where(real, places, 0), torch.where(rank[-1] <= count, real.float(), torch.nan)
