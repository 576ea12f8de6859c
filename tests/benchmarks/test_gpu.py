"""The GPU benchmark at tiny sizes on a CPU: every setting runs, and one that does not is shown with its reason."""

import json
import sys

import gpu
import pytest
import torch


def test_every_setting_runs_at_tiny_sizes(monkeypatch, tmp_path, capsys):
    monkeypatch.setitem(gpu.SETTINGS, "broken", {"encoder_layers": -1})
    monkeypatch.setattr(sys, "argv", ["gpu.py", "--dry", "--rounds", "1", "--json", str(tmp_path / "out.json")])
    gpu.main()
    found = json.loads((tmp_path / "out.json").read_text())
    names = [name for name in gpu.SETTINGS if name != "broken"]
    assert len(names) == 4 and "encoder_layers" in found["broken: does not run"]
    assert not [key for key in found if key.endswith("does not run") and "broken" not in key]
    for name in names:
        assert all(found[f"{name}: {part}"] > 0 for part in ("first epoch", "epoch", "validation"))
    ratio = found["fp32 + TF32: epoch"] / found["both: epoch"]
    assert found["both: base / it"] == pytest.approx(ratio)
    assert "base / it" in capsys.readouterr().out


def test_without_a_gpu_it_names_the_tiny_sizes(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(sys, "argv", ["gpu.py"])
    with pytest.raises(SystemExit, match="--dry"):
        gpu.main()
