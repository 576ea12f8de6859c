"""What published tables say, with the conditions under which it was measured; never to be printed as our own numbers.

LLM-EMF (Expert Systems with Applications 321, 2026), tables 2, 3 and 4: Amazon reviews in C2DSR's corrected split, percent,
MRR uncut, the target among sampled items of its domain. The paper names neither the number of those items nor seeds or
deviations; its rows of earlier systems equal C2DSR's published table, which ranks the target among 999 of them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import BaseModel

from llmemf.config import read_yaml

if TYPE_CHECKING:
    from llmemf.scenarios.scenario import Scenario

PAPER_METRICS = ("mrr", "ndcg_5", "ndcg_10")
OWN_PAPER = {"c2dsr"}
"""Systems whose numbers are those of their own paper; LLM-EMF's tables leave them out."""
NAMES = {
    "popularity": "Popularity",
    "item_knn": "ItemKNN",
    "transitions": "Transitions",
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
    "abxi": "ABXI",
    "llm_emf": "LLM-EMF",
}
"""The systems in the order of the paper's tables, and what they lack beside its like."""


class PaperTable(BaseModel, frozen=True):
    """One of the paper's tables.

    Attributes:
        title: what it is, for notes.
        num_items: of X and Y.
        num_train: training sequences.
        num_test: test targets of X and Y.
        rows: row -> MRR, NDCG@5, NDCG@10 of X, then of Y, in percent; as many of them as the table has.
    """

    title: str
    domains: tuple[str, str]
    num_items: tuple[int, int]
    num_train: int
    num_test: tuple[int, int]
    rows: dict[str, tuple[float, ...]]

    def value(self, row: str, name: str) -> float | None:
        """The table's number for a metric (`test/movie/mrr`) in percent, None where it has none."""
        names = [f"test/{domain}/{metric}" for domain in self.domains for metric in PAPER_METRICS]
        return dict(zip(names, self.rows.get(row, ()), strict=False)).get(name)

    def is_of(self, scenario: Scenario) -> bool:
        """Whether a scenario has the sizes of the paper's data: items, training sequences and test targets."""
        targets = scenario.test.targets
        num_test = (int((targets < scenario.num_x).sum()), int((targets >= scenario.num_x).sum()))
        sizes = ((scenario.num_x, scenario.num_y), len(scenario.train), num_test)
        return sizes == (self.num_items, self.num_train, self.num_test)


_TABLES = read_yaml(Path(__file__).with_name("paper_tables.yaml"))
FOOD_KITCHEN, MOVIE_BOOK, ABLATION = (PaperTable(**_TABLES[key]) for key in ("food_kitchen", "movie_book", "ablation"))
PAPERS = {"comparison": (FOOD_KITCHEN, MOVIE_BOOK), "ablation": (ABLATION,)}
"""Kind of a group -> the paper's tables whose numbers stand beside its rows."""


def shown_name(model: str) -> str:
    """A system as tables write it."""
    return NAMES.get(model, model)


def in_table_order(models: list[str]) -> list[str]:
    """Systems in the order of the paper's tables; others come before LLM-EMF."""
    order = [name for name in NAMES if name != "llm_emf"]
    return sorted(models, key=lambda name: order.index(name) if name in order else len(order) + (name == "llm_emf"))
