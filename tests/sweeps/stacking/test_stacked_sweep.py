"""A sweep with `--stack`: the trials and their objectives are those of single ones."""

import io

import pytest
from rich.console import Console
from sweep_fakes import fake_evaluate, tiny_data

from llmemf.config import build_config
from llmemf.models.llm_emf import LLMEMFConfig
from llmemf.training import Trainer
from sweeps.ledger import Ledger
from sweeps.plan import Options, plan_sweep
from sweeps.stacking import stacks
from sweeps.sweep import StandIns, run_sweep


@pytest.mark.ray
def test_trials_and_objectives_are_those_of_single_ones(tmp_path, monkeypatch, empty_database):
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "mlflow.db").write_bytes(empty_database.read_bytes())
    # Whether stacking is worth it here must not decide.
    monkeypatch.setattr(stacks, "WORTH", 0.0)
    assignments = [
        "modalities=id", "id_dim=4", "lr=1e-3,1e-2", "l2=1e-5", "alpha=0.4", "beta=0.2", "lambda1=0.1,0.5", "lambda2=0.1,0.3",
        "encoder_layers=1", "dropout=0.2", "objective=full", "batch_size=2",
    ]  # fmt: skip
    plan = plan_sweep(
        Options(
            scenario="movie_book", search="grid", trials=6, epochs=3, scheduler="none", name="s", stack=4, cpus_per_trial=2,
            gpus_per_trial=0, concurrency=3, assignments=assignments, storage=tmp_path / "mlruns", data_root=tmp_path,
        )
    )  # fmt: skip
    out, data = io.StringIO(), tiny_data()
    result = run_sweep(
        plan, Console(file=out, width=120, highlight=False), stand_ins=StandIns(data=data, evaluate=fake_evaluate)
    )
    assert result.exit_code == 0, out.getvalue()
    assert "trials are stacked" in out.getvalue() and "3 at once, 2 CPU for each stack of 4" in out.getvalue()
    records = Ledger(plan.record.folder).records
    assert len(records) == 6
    for record in records.values():
        assert record.outcome == "completed" and record.epoch == 3
        config = build_config(LLMEMFConfig, {**plan.fixed, **record.choice, "device": "cpu"})
        *_, last = Trainer(config, data.trial_data).epochs()
        assert record.objective == pytest.approx(last["objective"], rel=1e-4)
