"""What published tables say, with the conditions under which it was measured; never to be printed as our own numbers.

LLM-EMF (Expert Systems with Applications 321, 2026), tables 2 and 3: Amazon reviews in C2DSR's corrected split, percent, MRR
uncut, the target among sampled items of its domain. The paper names neither the number of those items nor seeds or
deviations; its rows of earlier systems equal C2DSR's published table, which ranks the target among 999 of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

PAPER_METRICS = ("mrr", "ndcg_5", "ndcg_10")
OWN_PAPER = {"c2dsr"}
"""Systems whose numbers are those of their own paper; LLM-EMF's tables leave them out."""
NAMES = {
    "popularity": "Popularity",
    "item_knn": "ItemKNN",
    "ncf_mlp": "NCF-MLP",
    "bprmf": "BPRMF",
    "pi_net": "pi-Net",
    "gru4rec": "GRU4Rec",
    "sasrec": "SASRec",
    "sr_gnn": "SR-GNN",
    "psjnet": "PSJNet",
    "mifn": "MIFN",
    "tri_cdr": "Tri-CDR",
    "c2dsr": "C2DSR",
    "lecdsr": "LeCDSR",
    "llm_emf": "LLM-EMF",
}
"""The systems in the order of the paper's tables, as they are written there."""


@dataclass(frozen=True)
class PaperTable:
    """One of the paper's tables.

    Attributes:
        num_items: of X and Y.
        num_train: training sequences.
        num_test: test targets of X and Y.
        rows: system -> MRR, NDCG@5, NDCG@10 of X, then of Y, in percent.
    """

    title: str
    domains: tuple[str, str]
    num_items: tuple[int, int]
    num_train: int
    num_test: tuple[int, int]
    rows: dict[str, tuple[float, ...]]

    def value(self, model: str, domain: str, metric: str) -> float | None:
        """A number of the table in percent, None where it has none."""
        if model not in self.rows or domain not in self.domains or metric not in PAPER_METRICS:
            return None
        return self.rows[model][3 * self.domains.index(domain) + PAPER_METRICS.index(metric)]

    def is_of(self, scenario: Scenario) -> bool:
        """Whether a scenario has the sizes of the paper's data: items, training sequences and test targets."""
        targets = scenario.test.targets
        num_test = (int((targets < scenario.num_x).sum()), int((targets >= scenario.num_x).sum()))
        sizes = ((scenario.num_x, scenario.num_y), len(scenario.train), num_test)
        return sizes == (self.num_items, self.num_train, self.num_test)


FOOD_KITCHEN = PaperTable(
    title="Food-Kitchen",
    domains=("food", "kitchen"),
    num_items=(29_207, 34_886),
    num_train=34_117,
    num_test=(2_747, 5_659),
    rows={
        "item_knn": (3.92, 3.51, 3.97, 1.89, 1.28, 1.75),
        "ncf_mlp": (4.49, 3.94, 4.51, 2.18, 1.57, 2.03),
        "bprmf": (4.10, 3.55, 4.03, 2.01, 1.45, 1.85),
        "pi_net": (7.68, 7.32, 8.13, 3.53, 2.98, 3.73),
        "gru4rec": (5.79, 5.48, 6.13, 3.06, 2.55, 3.10),
        "sasrec": (7.30, 6.90, 7.79, 3.79, 3.35, 3.93),
        "sr_gnn": (7.84, 7.58, 8.35, 4.01, 3.47, 4.13),
        "psjnet": (8.33, 8.07, 8.77, 4.10, 3.68, 4.32),
        "mifn": (8.55, 8.28, 9.01, 4.09, 3.57, 4.29),
        "tri_cdr": (8.35, 8.18, 8.89, 4.29, 3.63, 4.33),
        "c2dsr": (8.91, 8.65, 9.71, 4.65, 4.16, 4.94),
        "llm_emf": (9.24, 9.05, 10.21, 5.13, 4.84, 5.43),
    },
)

MOVIE_BOOK = PaperTable(
    title="Movie-Book",
    domains=("movie", "book"),
    num_items=(36_845, 63_937),
    num_train=58_515,
    num_test=(1_978, 5_730),
    rows={
        "item_knn": (2.92, 2.17, 2.88, 1.26, 0.86, 1.10),
        "ncf_mlp": (3.05, 2.26, 2.96, 1.43, 1.06, 1.26),
        "bprmf": (2.96, 2.18, 2.80, 1.27, 0.85, 1.17),
        "pi_net": (4.16, 3.72, 4.17, 2.17, 1.84, 2.03),
        "gru4rec": (3.83, 3.14, 3.73, 1.68, 1.34, 1.52),
        "sasrec": (3.79, 3.23, 3.69, 1.81, 1.41, 1.71),
        "sr_gnn": (3.85, 3.27, 3.78, 1.78, 1.40, 1.66),
        "psjnet": (4.63, 4.06, 4.76, 2.44, 2.07, 2.35),
        "mifn": (5.05, 4.21, 5.20, 2.51, 2.12, 2.31),
        "tri_cdr": (5.15, 4.62, 5.05, 2.32, 2.08, 2.22),
        "llm_emf": (6.32, 5.35, 5.78, 2.86, 2.53, 2.79),
    },
)

ABLATION = {"ids": 5.03, "text": 5.88, "text_llm": 6.01, "image": 6.08, "text_image": 6.15, "all": 6.32}
"""LLM-EMF's table 4: MRR in percent of X in Movie-Book, by row of `sweeps.ablations.rows`."""


def paper_table(domains: tuple[str, str]) -> PaperTable | None:
    """The paper's table of these two domains, None where it has none."""
    return next((table for table in (FOOD_KITCHEN, MOVIE_BOOK) if table.domains == domains), None)


def shown_name(model: str) -> str:
    """A system as tables write it."""
    return NAMES.get(model, model)


def in_table_order(models: list[str]) -> list[str]:
    """Systems in the order of the paper's tables; others come before LLM-EMF."""
    order = [name for name in NAMES if name != "llm_emf"]
    return sorted(models, key=lambda name: order.index(name) if name in order else len(order) + (name == "llm_emf"))
