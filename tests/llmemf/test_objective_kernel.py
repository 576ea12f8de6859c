"""The Triton kernels: by Triton's interpreter in a process of its own, compiled for an H200, and refused where they cannot run."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny import make_data, make_model, make_sequences

from llmemf.errors import InputError
from llmemf.objective_kernel import look_blocks, look_kernel, table_blocks, table_kernel, why_not

triton = pytest.importorskip("triton")

HOPPER_SHARED_MEMORY = 227 * 1024


def test_the_kernels_compute_the_objective_in_tritons_interpreter():
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", str(here / "interpreted_kernel.py")],
        env={**os.environ, "TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"},
        cwd=here.parent.parent,
        check=False,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


@pytest.mark.parametrize(
    ("kernel", "blocks", "width"), [(look_kernel, look_blocks, 512), (table_kernel, table_blocks, 256)]
)
def test_the_kernels_compile_for_an_h200_within_its_shared_memory(kernel, blocks, width):
    from triton.backends.compiler import GPUTarget

    types = {"targets": "*i32", "rows": "i32", "items": "i32", "items_per_split": "i32"}
    types |= {name: "*fp16" for name in ("queries", "weighted", "table", "present")}
    chosen = blocks(width)
    constants = {"WIDTH": width, "MASKED": False, "ROWS": chosen["ROWS"], "ITEMS": chosen["ITEMS"]}
    signature = {name: "constexpr" if name in constants else types.get(name, "*fp32") for name in kernel.arg_names}
    aligned = {(i,): [["tt.divisibility", 16]] for i, name in enumerate(kernel.arg_names) if signature[name][0] == "*"}
    source = triton.compiler.ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    options = {name: chosen[name] for name in ("num_warps", "num_stages")}
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options)
    assert compiled.metadata.shared <= HOPPER_SHARED_MEMORY
    assert "wgmma.mma_async" in compiled.asm["ptx"]


def test_a_cpu_refuses_the_kernels_when_they_are_asked_for_and_leaves_them_alone_otherwise():
    data = make_data()
    batch = make_sequences(data, "train").batch(torch.arange(5))
    assert "GPU" in why_not(torch.device("cpu"))
    with pytest.raises(InputError, match="objective_precision = fp16"):
        make_model(data, objective_kernel="triton").train().training_loss(batch)
    with pytest.raises(InputError, match="needs a GPU: set auto or plain"):
        make_model(data, objective_kernel="triton", objective_precision="fp16").train().training_loss(batch)
    losses = [
        make_model(data, objective_kernel=kernel, objective_precision="fp16").train().training_loss(batch).item()
        for kernel in ("auto", "plain")
    ]
    assert losses[0] == losses[1]
