"""CUDA kernels in Numba: the cells' equations as device functions inside kernels for a block, a cluster, a grid, or a step.

`PRECISE` and `FAST`, the backends numba-cuda and numba-cuda-fast, differ in their kernels' mathematics (`maths`). `FP16` and
`BF16`, numba-cuda-fp16 and numba-cuda-bf16, are precise and store recurrent weights in 16 bits (`weights`). `TF32`,
numba-cuda-tf32, computes tiled products on tensor cores (`arithmetic`).
Start with `plan`, which decides how a layer runs, and `buffers`, the legend of what kernels read and write. Numba is imported by
the modules that run kernels, not here: a plan can be shown without it.

Everything here is tested in Numba's simulator, compiled for real devices, and run as PTX by a machine of the tests; it has not
run on a GPU yet.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ...params import Spec
from . import plan

if TYPE_CHECKING:
    from .network import DeviceNetwork

VARIABLE = "RNNBENCH_CUDA_KERNEL"


@dataclass(frozen=True)
class CudaBackend:
    """See `base.Backend`. fast: whether to use approximate mathematics. narrow: the 16-bit dtype that recurrent weights are stored
    in, "" for the dtype of the computation. tensor_cores: whether these compute tiled products, in TensorFloat-32.
    """

    name: str
    fast: bool
    narrow: str = ""
    tensor_cores: bool = False

    def describe(self) -> str:
        """What runs: "numba-cuda 0.30.4 on NVIDIA H200, precise mathematics, recurrent weights in float16"."""
        from . import device

        mode = ("fast" if self.fast else "precise") + " mathematics"
        mode += ", large products in TF32" if self.tensor_cores else ""
        stored = f", recurrent weights in {self.narrow}" if self.narrow else ""
        forced = f", kernel {self.kernel}" if self.kernel else ""
        return f"{device.version()} on {device.current().name}, {mode}{stored}{forced}"

    @property
    def kernel(self) -> str:
        """The kernel, or several with commas between, that the environment variable RNNBENCH_CUDA_KERNEL forces on every layer; ""
        leaves it to the plan.
        """
        return os.environ.get(VARIABLE, "")

    def why_unavailable(self) -> str | None:
        """Why there is no usable GPU, in a sentence, or None if there is one."""
        from . import device

        return device.why_unavailable(self.name)

    def why_unsupported(self, spec: Spec, direction: str) -> str | None:
        """None, or a sentence saying that the dtype or a forced kernel is unsuitable. Every cell and size runs on some kernel."""
        from . import device

        if (self.narrow or self.tensor_cores) and spec.dtype != "float32":
            how = f"with weights in {self.narrow}" if self.narrow else "and TF32"
            return f"the backend {self.name} computes in float32 {how}, and the dtype is {spec.dtype}; numba-cuda computes in both"
        if self.tensor_cores and not device.has_tf32():
            return f"the backend {self.name} needs tensor cores that compute in TF32, of compute capability 8.0 or more"
        try:
            self.planned(spec, 1)
        except plan.Unsuitable as error:
            return str(error)
        return None

    def prepare(self, spec: Spec, params: Mapping[str, np.ndarray]) -> DeviceNetwork:
        """The network on the current device; see `base.Backend.prepare`. Kernels compile at their first call."""
        from .network import DeviceNetwork

        return DeviceNetwork(spec, params, self.fast, self._stored(spec), self.tensor_cores, self.kernel)

    def ceilings(self, meeting: Collection[str]) -> dict[str, float]:
        """The device's measured peak rates; see `ceilings.measure`, also for the argument."""
        from . import ceilings

        return ceilings.measure(meeting)

    def floor_us(
        self, spec: Spec, batch_size: int, training: bool, flops: float, ceilings: Mapping[str, float]
    ) -> float:
        """The shortest time of a time step on the current device; see `floor.floor_us`, also for the arguments."""
        from . import device, floor

        made = self.planned(spec, batch_size)
        return floor.floor_us(spec, batch_size, training, made, device.current(), flops, ceilings)

    def planned(self, spec: Spec, batch_size: int) -> plan.Plan:
        """The plan for a layer on the current device. Raises what `plan.plan` raises."""
        from . import device

        return plan.plan(spec, batch_size, device.current(), self._stored(spec), self.kernel, self.tensor_cores)

    def explain(self, spec: Spec, batch_size: int) -> str:
        """The plan for a layer, as text: for the current GPU, or for an H200 if there is none."""
        from . import device

        usable = device.why_unavailable(self.name) is None and not device.SIMULATED
        found = device.current() if usable else plan.H200
        text = plan.explain(spec, batch_size, found, self._stored(spec), self.kernel, self.tensor_cores)
        return text if usable else text + "                  no GPU can be used here, so this is what one would run\n"

    def _stored(self, spec: Spec) -> str:
        """The dtype of the recurrent weights."""
        return self.narrow or spec.dtype


PRECISE, FAST = CudaBackend("numba-cuda", False), CudaBackend("numba-cuda-fast", True)
TF32 = CudaBackend("numba-cuda-tf32", False, tensor_cores=True)
FP16, BF16 = (CudaBackend(f"numba-cuda-{n}", False, s) for n, s in (("fp16", "float16"), ("bf16", "bfloat16")))
