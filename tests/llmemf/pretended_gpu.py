"""A GPU that is not there: its tensors say `cuda:0`, compute on the CPU, and refuse to meet tensors of the CPU, as a real one's do.

    with PretendedGPU() as gpu:
        trainer = Trainer(config_with_device_cuda, data)
        list(trainer.epochs())          # the CPU's very numbers
    gpu.waits                           # where the processor waited for the GPU, by place in the product and operation

It finds tensors left on the wrong device, and hidden waits: an `.item()`, a copy back, a mask that becomes indices. It says
nothing of kernels, speed or rounding. Random numbers are those of the CPU's generator, `inference_mode` is `no_grad`.
Under `torch.autocast("cuda", ...)` the operations of torch's two lists that the systems use are cast as torch casts them.
"""

from __future__ import annotations

import sys
from collections import Counter
from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Self
from unittest.mock import patch

import torch
import torch._dynamo  # before the queries below take the place of those that it lists
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map

aten = torch.ops.aten
DEVICE = torch.device("cuda", 0)
WAITS = {
    aten._local_scalar_dense, aten.nonzero, aten.masked_select, aten._unique, aten._unique2, aten.unique_dim,
    aten.unique_consecutive, aten.equal, aten.bincount, aten.is_nonzero,
}  # fmt: skip
"""Operations whose result, or its size, the processor has to know before it goes on."""
COPIES = {aten._to_copy, aten.copy_}
LOW = {
    torch.matmul, torch.mm, torch.bmm, torch.addmm, torch.baddbmm, torch.einsum, torch.nn.functional.linear,
    torch.nn.functional.scaled_dot_product_attention, torch.nn.functional.bilinear, torch.Tensor.matmul, torch.Tensor.__matmul__, torch.Tensor.mm,
    torch.Tensor.bmm, torch.Tensor.__rmatmul__, torch._VF.gru, torch._VF.gru_cell, torch.prelu,
}  # fmt: skip
"""What autocast computes in its precision ..."""
HIGH = {
    torch.nn.functional.softmax, torch.nn.functional.log_softmax, torch.nn.functional.layer_norm,
    torch.nn.functional.cross_entropy, torch.nn.functional.binary_cross_entropy_with_logits, torch.nn.functional.cosine_similarity, torch.nn.functional.normalize,
    torch.exp, torch.log, torch.softmax, torch.log_softmax, torch.cumsum, torch.sum, torch.prod, torch.norm, torch.pow,
    torch.Tensor.exp, torch.Tensor.log, torch.Tensor.softmax, torch.Tensor.log_softmax, torch.Tensor.cumsum, torch.Tensor.sum,
    torch.Tensor.prod, torch.Tensor.norm, torch.Tensor.pow, torch.Tensor.square,
}  # fmt: skip
"""... and in fp32."""


class GpuTensor(torch.Tensor):
    """Shape and strides of a tensor on the pretended GPU; `twin` is the tensor of the CPU that computes."""

    twin: torch.Tensor

    @staticmethod
    def __new__(cls, twin: torch.Tensor) -> GpuTensor:
        outside = torch.empty_strided(twin.shape, twin.stride(), dtype=twin.dtype, device="meta")
        made = torch.Tensor._make_subclass(cls, outside, False)
        made.twin = twin
        return made

    @property
    def device(self) -> torch.device:
        return DEVICE

    @property
    def is_cuda(self) -> bool:
        return True

    @property
    def is_meta(self) -> bool:
        return False

    def tolist(self) -> Any:
        return self.to("cpu").tolist()

    def numpy(self, *_: Any, **__: Any) -> Any:
        raise TypeError("can't convert cuda:0 device type tensor to numpy. Use Tensor.cpu() first")

    def __reduce_ex__(self, protocol: Any) -> Any:
        """On the disk it is any tensor; where it lay is asked for when it is read."""
        return self.to("cpu").__reduce_ex__(protocol)

    def __repr__(self, **_: Any) -> str:
        return f"GpuTensor({tuple(self.shape)}, {self.dtype})"

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        assert PretendedGPU.active is not None, "a tensor of the pretended GPU outlived it"
        return PretendedGPU.active.carry_out(operation, args, kwargs or {})


class PretendedGPU(TorchDispatchMode):
    """One GPU, for as long as it is entered.

    Attributes:
        waits: (place in the product, operation) -> how often the processor waited for the GPU.
        uploads: the same for copies to the GPU of memory that is not pinned.
    """

    active: PretendedGPU | None = None

    def __init__(self) -> None:
        super().__init__()
        self.waits: Counter[tuple[str, str]] = Counter()
        self.uploads: Counter[tuple[str, str]] = Counter()
        self._pinned: set[int] = set()
        self._stack = ExitStack()

    def __enter__(self) -> Self:
        assert PretendedGPU.active is None, "one pretended GPU at a time"
        torch._C._ensureCUDADeviceGuardSet()
        for name, value in self._queries().items():
            self._stack.enter_context(patch.object(torch.cuda, name, value))
        self._stack.enter_context(patch.object(torch, "inference_mode", torch.no_grad))
        self._stack.enter_context(_Functions())
        PretendedGPU.active = self
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        PretendedGPU.active = None
        self._stack.close()

    def _queries(self) -> dict[str, Any]:
        """What `torch.cuda` answers."""
        gigabyte = 2**30
        properties = SimpleNamespace(
            name="a pretended GPU",
            major=9,
            minor=0,
            total_memory=80 * gigabyte,
            multi_processor_count=100,
            L2_cache_size=50 * 2**20,
        )

        def synchronize(device: Any = None) -> None:
            self.waits[_place(), "synchronize"] += 1

        zero = dict.fromkeys(
            ("memory_allocated", "max_memory_allocated", "memory_reserved", "max_memory_reserved"),
            lambda device=None: 0,
        )
        nothing = dict.fromkeys(
            ("_lazy_init", "empty_cache", "reset_peak_memory_stats", "set_device", "manual_seed", "manual_seed_all"),
            lambda *_, **__: None,
        )
        return {
            **zero,
            **nothing,
            "is_available": lambda: True,
            "is_bf16_supported": lambda *_, **__: True,
            "device_count": lambda: 1,
            "current_device": lambda: 0,
            "is_current_stream_capturing": lambda: False,
            "get_device_name": lambda device=None: properties.name,
            "get_device_capability": lambda device=None: (9, 0),
            "get_device_properties": lambda device=None: properties,
            "mem_get_info": lambda device=None: (70 * gigabyte, 80 * gigabyte),
            "synchronize": synchronize,
            "get_rng_state": lambda device=None: torch.zeros(0, dtype=torch.uint8),
            "set_rng_state": lambda state, device=None: None,
        }

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return self.carry_out(operation, args, kwargs or {})

    def carry_out(self, operation: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        """Compute on the CPU what was asked of the GPU.

        Raises:
            RuntimeError: tensors of both devices meet.
        """
        packet = operation.overloadpacket
        if packet in (aten._pin_memory, aten.pin_memory):
            copy = args[0].clone()
            self._pinned.add(copy.untyped_storage().data_ptr())
            return copy
        if packet is aten.is_pinned:
            return args[0].untyped_storage().data_ptr() in self._pinned
        tensors = [value for value in tree_flatten((args, kwargs))[0] if isinstance(value, torch.Tensor)]
        on_gpu = any(isinstance(tensor, GpuTensor) for tensor in tensors)
        given = kwargs.get("device")
        target = None if given is None else torch.device(given).type
        if on_gpu and packet not in COPIES:
            for tensor in tensors:
                if not isinstance(tensor, GpuTensor) and tensor.dim() > 0:
                    raise RuntimeError(
                        f"Expected all tensors to be on the same device, but found cuda:0 and cpu {tuple(tensor.shape)}: {operation}"
                    )
        self._count(packet, args, kwargs, on_gpu, target)
        outer = {id(tensor.twin): tensor for tensor in tensors if isinstance(tensor, GpuTensor)}
        found = operation(*tree_map(_twin, args), **tree_map(_twin, kwargs))
        stays = target in ("cuda", "meta") if target is not None else on_gpu
        if packet is aten.copy_:
            stays = isinstance(args[0], GpuTensor)
        for tensor in outer.values():
            self._follow(tensor)
        return tree_map(lambda value: self._outside(value, outer), found) if stays else found

    def _count(self, packet: Any, args: Any, kwargs: dict[str, Any], on_gpu: bool, target: str | None) -> None:
        name = packet.__name__
        if packet in COPIES:
            source = args[1] if packet is aten.copy_ else args[0]
            to_gpu = (
                isinstance(args[0], GpuTensor)
                if packet is aten.copy_
                else target in ("cuda", "meta") or (target is None and on_gpu)
            )
            if isinstance(source, GpuTensor) and not to_gpu:
                self.waits[_place(), "copy to the CPU"] += 1
            elif (
                not isinstance(source, GpuTensor)
                and to_gpu
                and source.dim()
                and source.untyped_storage().data_ptr() not in self._pinned
            ):
                self.uploads[_place(), name] += 1
        elif on_gpu and (
            packet in WAITS
            or self._masks(packet, args)
            or (packet is aten.repeat_interleave and kwargs.get("output_size") is None)
        ):
            self.waits[_place(), name] += 1

    @staticmethod
    def _masks(packet: Any, args: Any) -> bool:
        """Whether an index is a mask, whose True entries have to be counted first."""
        if packet not in (aten.index, aten.index_put, aten.index_put_, aten._index_put_impl_):
            return False
        return any(isinstance(index, torch.Tensor) and index.dtype in (torch.bool, torch.uint8) for index in args[1])

    @staticmethod
    def _follow(tensor: GpuTensor) -> None:
        """An operation in place may have changed the shape (`transpose_`, `squeeze_`): the outside follows."""
        twin = tensor.twin
        with torch._C._DisableTorchDispatch():
            if tuple(tensor.shape) != tuple(twin.shape) or tensor.stride() != twin.stride():
                torch.Tensor.as_strided_(tensor, twin.shape, twin.stride())

    @staticmethod
    def _outside(value: Any, outer: dict[int, GpuTensor]) -> Any:
        if not isinstance(value, torch.Tensor) or isinstance(value, GpuTensor):
            return value
        return outer.get(id(value)) if id(value) in outer else GpuTensor(value)


def _twin(value: Any) -> Any:
    if isinstance(value, GpuTensor):
        return value.twin
    if isinstance(value, torch.device) and value.type in ("cuda", "meta"):
        return torch.device("cpu")
    return value


class _Functions(TorchFunctionMode):
    """What happens above the operations: autocast, since torch's own looks at the kind of memory; tensors made of lists."""

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        made = function in (torch.tensor, torch.as_tensor) and not isinstance(args[0], GpuTensor)
        if made and torch.device(kwargs.get("device") or "cpu").type == "cuda":
            return function(*args, **kwargs | {"device": "cpu"}).to("cuda")
        if torch.is_autocast_enabled("cuda") and function in LOW | HIGH:
            wanted = torch.get_autocast_dtype("cuda") if function in LOW else torch.float32
            args, kwargs = tree_map(lambda value: _cast(value, wanted), (args, kwargs))
        return function(*args, **kwargs)


def _cast(value: Any, wanted: torch.dtype) -> Any:
    low = (torch.float32, torch.bfloat16, torch.float16)
    return value.to(wanted) if isinstance(value, GpuTensor) and value.dtype in low and value.dtype != wanted else value


def _place() -> str:
    """The innermost line of the product that is running."""
    frame = sys._getframe(1)
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if module.startswith("llmemf."):
            return f"{module}:{frame.f_lineno}"
        frame = frame.f_back
    return "elsewhere"
