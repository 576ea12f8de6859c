"""LLM-EMF written once more, in plain NumPy, one user and one sequence at a time, without padding or batching."""

from __future__ import annotations

from math import erf

import numpy as np
from tiny import NUM_ITEMS, NUM_X

from llmemf.models.content import with_content


def layer_norm(x, p, name):
    mean, variance = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + 1e-8) * p[f"{name}.weight"] + p[f"{name}.bias"]


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0)


def softmax(x):
    exponentials = np.exp(x - x.max())
    return exponentials / exponentials.sum()


def unit(rows):
    return rows / np.maximum(np.linalg.norm(rows, axis=-1, keepdims=True), 1e-12)


def attention_block(x, p, name, heads, bare):
    queries_from = x if bare else layer_norm(x, p, f"{name}.norm_attention")
    q, k, v = (
        linear(source, p, f"{name}.{part}") for part, source in (("query", queries_from), ("key", x), ("value", x))
    )
    width = x.shape[1] // heads
    mixed = np.zeros_like(x)
    for head in range(heads):
        part = slice(head * width, (head + 1) * width)
        weights = np.tril(np.exp(q[:, part] @ k[:, part].T / np.sqrt(width)))
        mixed[:, part] = weights / weights.sum(1, keepdims=True) @ v[:, part]
    if bare:
        return mixed
    x = layer_norm(queries_from + linear(mixed, p, f"{name}.out"), p, f"{name}.norm_network")
    return x + linear(np.maximum(linear(x, p, f"{name}.inner"), 0), p, f"{name}.outer")


class Reference:
    """Losses and scores of a model with one tower, from its parameters and its data."""

    def __init__(self, model, data):
        self.config, self.data, self.known = model.config, data, {}
        self.p = {
            name.removeprefix("towers.0."): tensor.detach().double().numpy()
            for name, tensor in model.state_dict().items()
        }
        self.modalities = list(model.towers[0].modalities)
        log_weights = self.p["head.log_weights"]
        self.weights = np.exp(log_weights) / np.exp(log_weights).sum()
        scales = np.minimum(np.exp(self.p["head.log_scale"]), self.config.scale_max)
        self.scales = np.broadcast_to(scales, len(self.modalities))
        self.unit = [m != "id" or self.config.similarity == "cosine" for m in self.modalities]
        self.scales = np.where(self.unit, self.scales, 1 / 0.75)
        self.inputs, self.outputs, self.has = [], [], []
        for modality in self.modalities:
            if modality == "id":
                table = self.p["head.tables.id.input"]
                output = self.p.get("head.tables.id.output", table)
                self.inputs.append(table)
                self.outputs.append(unit(output) if self.config.similarity == "cosine" else output)
                self.has.append(np.ones(NUM_ITEMS, dtype=bool))
            else:
                rows, has = self._frozen(self._features(data, modality), f"head.tables.{modality}")
                self.inputs.append(rows * has[:, None])
                self.outputs.append(rows)
                self.has.append(has)
        self.has = np.stack(self.has, 1)
        weights = np.tile(self.weights, (NUM_ITEMS, 1))
        present = weights * self.has
        self.item_weights = present / np.maximum(present.sum(1, keepdims=True), 1e-300)

    def _features(self, data, modality):
        """What `tests/llmemf/test_content.py` checks by itself is taken as it is."""
        content = getattr(self.config, f"{modality}_content")
        return with_content(getattr(data, modality), content, num_x=data.num_x, seed=self.config.seed)

    def _frozen(self, features, name):
        rows, has = unit(features.rows.astype(np.float64)), features.has.copy()
        if self.config.missing == "domain_mean":
            for part in (slice(0, NUM_X), slice(NUM_X, None)):
                rows[part][~has[part]] = unit(rows[part][has[part]].mean(0))
        elif self.config.missing == "learned":
            rows[~has] = unit(self.p[f"{name}.missing"])
        if self.config.missing != "renormalise":
            has[:] = True
        if self.config.item_projection == "linear":
            rows = unit(rows @ self.p[f"{name}.projection.weight"].T)
        elif self.config.item_projection == "mlp":
            hidden = linear(rows, self.p, f"{name}.projection.0")
            hidden = hidden * 0.5 * (1 + np.vectorize(erf)(hidden / np.sqrt(2)))
            rows = unit(linear(hidden, self.p, f"{name}.projection.2"))
        return rows, has

    def states(self, items, sequence):
        """Per modality (L, D_m) states of the given items, oldest first."""
        if (sequence, *items) not in self.known:
            self.known[sequence, *items] = self._states(items, sequence)
        return self.known[sequence, *items]

    def _states(self, items, sequence):
        found = []
        for m, modality in enumerate(self.modalities):
            key = {"none": f"{sequence}_{modality}", "sequences": modality, "modalities": sequence}[
                self.config.share_encoders
            ]
            name, bare = f"encoders.{key}", self.config.encoder == "bare"
            x = self.inputs[m][items] * np.sqrt(self.inputs[m].shape[1])
            if self.config.positions:
                positions = self.p[f"{name}.positions"][: len(items)]
                x = x + (positions if self.config.position_origin == "oldest" else positions[::-1])
            for layer in range(self.config.encoder_layers):
                x = attention_block(x, self.p, f"{name}.blocks.{layer}", self.config.heads, bare)
            found.append(x if bare else layer_norm(x, self.p, f"{name}.norm"))
        return found

    def probability(self, vectors, low, high):
        """(N,) P(i) of eqs. 3 and 5-8 with the softmax over the items low .. high - 1; 0 elsewhere."""
        items = np.arange(low, high)
        has, weights = self.has[items], self.item_weights[items]
        vectors = [unit(v) if known else v for v, known in zip(vectors, self.unit)]
        cosines = np.stack([self.outputs[m][items] @ v for m, v in enumerate(vectors)], 1)
        probability = np.zeros(NUM_ITEMS)
        if self.config.mixture == "logit":
            possible = has.any(1)
            probability[items[possible]] = softmax((weights * self.scales * cosines).sum(1)[possible])
            return probability
        for m in range(len(vectors)):
            if has[:, m].any():
                probability[items[has[:, m]]] += weights[has[:, m], m] * softmax(self.scales[m] * cosines[has[:, m], m])
        return probability

    def loss(self, sequences):
        """Eqs. 9 and 10 for whole sequences (none longer than the model's length), averaged over them."""
        config, total = self.config, 0.0
        weight = {"x": 1.0, "y": 1.0 if config.loss_roles == "symmetric" else config.lambda1, "xy": config.lambda2}
        for sequence in sequences:
            if config.fusion == "states":
                total += sum(weight["xy"[d]] * self.summed_loss(list(sequence), d) for d in (0, 1))
                continue
            for s in config.sequences:
                total += weight[s] * self.sequence_loss(list(sequence), s)
        return total / len(sequences)

    def summed_states(self, items, inputs, domain):
        """Of each modality the last merged state plus that of the latest item of a domain, within a sequence of inputs."""
        merged = [state[len(items) - 1] for state in self.states(inputs, "xy")]
        own = [item for item in inputs if (item >= NUM_X) == bool(domain)]
        count = sum((item >= NUM_X) == bool(domain) for item in items)
        if not count:
            return merged
        return [m + state[count - 1] for m, state in zip(merged, self.states(own, "xy"[domain]))]

    def summed_loss(self, sequence, domain):
        low, high, losses = NUM_X * domain, (NUM_X, NUM_ITEMS)[domain], []
        for t, target in enumerate(sequence):
            if t and low <= target < high:
                vectors = self.summed_states(sequence[:t], sequence[:-1], domain)
                probability = self.probability(vectors, low, high)[target]
                losses.append(-np.log(probability) if probability > 0 else 0.0)
        return sum(losses)

    def sequence_loss(self, sequence, s):
        config, losses = self.config, []
        member = {"x": lambda i: i < NUM_X, "y": lambda i: i >= NUM_X, "xy": lambda i: True}[s]
        where = [t for t, item in enumerate(sequence[:-1]) if member(item)]
        if not where:
            return 0.0
        first = []
        if config.empty_sequence == "learned" and s != "xy":
            learned = [self.p[f"empty.{s}_{modality}"] for modality in self.modalities]
            over_all = config.next_target == "merged"
            low, high = (0, NUM_ITEMS) if over_all else (0, NUM_X) if s == "x" else (NUM_X, NUM_ITEMS)
            first = [-np.log(self.probability(learned, low, high)[sequence[where[0]]])]
        states = self.states([sequence[t] for t in where], s)
        merged = s == "xy" or config.next_target == "merged"
        for column, t in enumerate(where):
            later = sequence[t + 1 :] if merged else [item for item in sequence[t + 1 :] if member(item)]
            if not later:
                continue
            over_all = merged and not (s == "xy" and config.merged_softmax == "target_items")
            own = (0, NUM_X) if later[0] < NUM_X else (NUM_X, NUM_ITEMS)
            low, high = (0, NUM_ITEMS) if over_all else own
            probability = self.probability([state[column] for state in states], low, high)[later[0]]
            losses.append(-np.log(probability) if probability > 0 else 0.0)
        count = {"all": len(losses), "last": 1, "last10": 10}[config.loss_positions]
        return float(sum(first) + sum(losses[-count:]))

    def back_off(self, history, low, high):
        """(n,) what popularity, transitions and likeness of texts add."""
        config, items = self.config, range(low, high)
        seen = np.array([np.sum(self.data.train.items == item) for item in items])
        found = config.popularity_weight * seen / seen.sum()
        if config.transition_weight:
            follows = np.zeros(high - low)
            for age, item in enumerate(reversed(history[-config.max_length :][-3:])):
                shares = np.zeros(high - low)
                for index in range(len(self.data.train)):
                    row = self.data.train.row(index).tolist()
                    for t, one in enumerate(row):
                        for ahead, after in enumerate(row[t + 1 : t + 4], start=1):
                            if one == item and low <= after < high:
                                shares[after - low] += 1 / ahead
                follows += 0.5**age * shares / max(shares.sum(), 1e-300)
            found = found + config.transition_weight * follows / max(follows.sum(), 1e-300)
        if config.neighbour_weight:
            rows = [set(self.data.train.row(index).tolist()) for index in range(len(self.data.train))]
            count = [sum(item in row for row in rows) for item in range(NUM_ITEMS)]
            like = np.zeros(high - low)
            for one in history[-config.max_length :]:
                for item in items:
                    both = sum(one in row and item in row for row in rows) if one != item else 0
                    like[item - low] += both / (np.sqrt(count[one] * count[item]) + 10 + 1e-6)
            found = found + config.neighbour_weight * like / max(like.sum(), 1e-300)
        if config.text_weight:
            features = self._features(self.data, "text")
            rows, has = unit(features.rows.astype(np.float64)), features.has
            like = np.zeros(high - low)
            for age, item in enumerate(reversed(history[-config.max_length :][-config.text_items :])):
                if has[item]:
                    like += config.text_decay**age * np.exp(config.text_scale * rows[low:high] @ rows[item])
            like *= has[low:high]
            like /= max(like.sum(), 1e-300)
            found = found + config.text_weight * like / (1 + seen / config.text_trust)
        return found

    def score(self, history, domain):
        """(n,) log of eq. 11 for the items of a domain; -inf where nothing gives a probability."""
        config = self.config
        lambda1 = config.lambda1 if config.eval_lambda1 is None else config.eval_lambda1
        lambda2 = config.lambda2 if config.eval_lambda2 is None else config.eval_lambda2
        low, high = (NUM_X, NUM_ITEMS) if domain else (0, NUM_X)
        own, other = ("y", "x") if domain else ("x", "y")
        weight = {own: 1.0, other: lambda1, "xy": lambda2}
        if config.score_roles == "x_first":
            weight |= {"x": 1.0, "y": lambda1}
        if config.cross_softmax == "drop":
            weight[other] = 0.0
        total = np.zeros(NUM_ITEMS)
        if config.fusion == "states":
            recent = history[-config.max_length :]
            own = [item for item in history if (item >= NUM_X) == bool(domain)][-config.max_length :]
            vectors = [state[-1] for state in self.states(recent, "xy")]
            if own:
                vectors = [m + state[-1] for m, state in zip(vectors, self.states(own, "xy"[domain]))]
            total += self.probability(vectors, low, high)
        for s in config.sequences if config.fusion == "probabilities" else ():
            if weight[s] == 0:
                continue
            items = [i for i in history if s == "xy" or (i >= NUM_X) == (s == "y")][-config.max_length :]
            if items:
                vectors = [state[-1] for state in self.states(items, s)]
            elif config.empty_sequence == "learned":
                vectors = [self.p[f"empty.{s}_{modality}"] for modality in self.modalities]
            else:
                continue
            over_all = (
                config.merged_softmax != "target_items"
                if s == "xy"
                else config.next_target == "merged" or (s == other and config.cross_softmax == "all_items")
            )
            probability = self.probability(vectors, *((0, NUM_ITEMS) if over_all else (low, high)))
            if s == "xy" and config.merged_softmax == "renormalise":
                probability = probability / probability[low:high].sum()
            total += weight[s] * probability
        total[low:high] += self.back_off(history, low, high)
        with np.errstate(divide="ignore"):
            return np.log(total[low:high])
