"""A machine that runs the PTX of a kernel where there is no GPU: all threads of all blocks, an instruction at a time.

It runs what the compiler made of a kernel, with its integer widths, its layout of parameters and of shared memory, and CUDA's own
functions; its memory finds wrong accesses and races, see ptx_memory.py. What it cannot show is how long anything takes.

Threads are the lanes of arrays. Of those that can run, the ones that are least far in the program run next, so threads that took
different ways come together again where these join.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Any

import numpy as np
from ptx_memory import Clock, DeviceMemory, Space, Wrong
from ptx_operations import TYPES, mma_m16n8k8, operation
from ptx_text import Instruction, Kernel

WARP = 32
_DONE = np.iinfo(np.int64).max
_AXES = "xyz"
_NOTHING = ("prefetch", "membar", "fence", "pragma")
Lanes = np.ndarray


def launch(
    kernel: Kernel, memory: DeviceMemory, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[int],
    cluster: int = 1,
) -> None:  # fmt: skip
    """Run a kernel to its end. grid, block: blocks in the grid and threads in a block. arguments: the bits of each parameter.
    cluster: how many blocks in a row, along the grid's first dimension, are a cluster. Raises Wrong, with the instruction.
    """
    _Run(kernel, memory, grid, block, arguments, cluster).run()


class _Run:
    def __init__(
        self, kernel: Kernel, memory: DeviceMemory, grid: tuple[int, ...], block: tuple[int, ...], arguments: list[int],
        cluster: int,
    ) -> None:  # fmt: skip
        grid, block = ((*size, 1, 1)[:3] for size in (grid, block))
        blocks, threads = int(np.prod(grid)), int(np.prod(block))
        self.kernel, self.count = kernel, blocks * threads
        if grid[0] % cluster:
            raise Wrong(f"{grid[0]} blocks are no whole number of clusters of {cluster}")
        self.everyone = np.arange(self.count)
        self.clock = Clock(blocks, threads)
        # Blocks of a cluster exchange in global memory. Where there are clusters a block's own barrier orders nothing there:
        # stricter than the device is, and what kernels keep to.
        self.cluster = self.everyone // (threads * cluster)
        self.clusters = Clock(blocks // cluster, threads * cluster) if cluster > 1 else self.clock
        thread, self.block = self.everyone % threads, self.everyone // threads
        self.warp = self.block * -(-threads // WARP) + thread // WARP
        self.special = {"%laneid": thread % WARP}
        for i, axis in enumerate(_AXES):
            self.special[f"%tid.{axis}"] = thread // int(np.prod(block[:i])) % block[i]
            self.special[f"%ctaid.{axis}"] = self.block // int(np.prod(grid[:i])) % grid[i]
            self.special[f"%ntid.{axis}"] = np.full(self.count, block[i])
            self.special[f"%nctaid.{axis}"] = np.full(self.count, grid[i])
        self.registers: dict[str, np.ndarray] = {}
        self.parameters: dict[str, Any] = {
            name: np.array([bits], np.uint64) for name, bits in zip(kernel.parameters, arguments, strict=True)
        }
        # of these each block or lane has a part: how many bytes, and where each lane's starts
        self.own = {
            "shared": (kernel.shared_bytes, self.block * _rounded(kernel.shared_bytes)),
            "local": (kernel.local_bytes, self.everyone * _rounded(kernel.local_bytes)),
        }
        self.spaces = {
            "global": memory,
            "shared": Space("shared", blocks * _rounded(kernel.shared_bytes)),
            "local": Space("local", self.count * _rounded(kernel.local_bytes)),
        }
        self.at = np.zeros(self.count, np.int64)
        self.waits, self.waits_for_cluster, self.waits_for_all = (np.zeros(self.count, bool) for _ in range(3))
        self.arrived = np.zeros(self.count, bool)  # at the cluster's barrier

    def run(self) -> None:
        with np.errstate(all="ignore"):
            while True:
                waits = self.waits | self.waits_for_cluster | self.waits_for_all
                ready = np.where(waits, _DONE, self.at)
                first = int(ready.min())
                if first < _DONE:
                    self._run_together(np.flatnonzero(ready == first), first)
                elif not self._open_barriers():
                    return

    def _run_together(self, lanes: Lanes, now: int) -> None:
        """Run these lanes from an instruction to where they may part, or others may join them."""
        code, joins = self.kernel.code, self.kernel.places
        while True:
            try:
                if not self._step(code[now], lanes, now):
                    return
            except (Wrong, ZeroDivisionError) as error:
                raise Wrong(f"{code[now].text}: {error}") from error
            except KeyError as error:
                raise Wrong(f"{code[now].text}: this machine does not know {error}") from error
            now += 1
            if now in joins:
                self.at[lanes] = now
                return

    def _open_barriers(self) -> bool:
        """Where every lane has ended or waits: let those pass whose barrier is complete. Returns whether any waited."""
        if self._open(self.waits, self.block, self.clock, "block"):
            return True
        if self._open(self.waits_for_cluster, self.cluster, self.clusters, "cluster"):
            return True
        if not self.waits_for_all.any():
            return False
        if not self.waits_for_all.all() or np.unique(self.at).size > 1:
            raise Wrong("some threads wait at the grid's barrier, and others never come there")
        self.clock.all_met()
        self.waits_for_all[:] = False
        return True

    def _open(self, waits: np.ndarray, group: np.ndarray, clock: Clock, name: str) -> bool:
        """Let those pass who wait for their group. Returns whether any did."""
        waiting = np.unique(group[waits])
        for one in waiting:
            own = group == one
            if not waits[own].all() or np.unique(self.at[own]).size > 1:
                raise Wrong(f"some threads of a {name} wait at a barrier, and others never come there")
            clock.blocks[one] += 1
        waits[:] = False
        return bool(waiting.size)

    # ---- one instruction

    def _step(self, step: Instruction, lanes: Lanes, now: int) -> bool:
        """Run an instruction for these lanes. Returns whether all of them go on with the next one."""
        if step.predicate:
            chosen = self.registers[step.predicate][lanes] != step.negated
            if step.name in ("bra", "ret", "exit"):
                taken = self.kernel.labels[step.operands[0]] if step.name == "bra" else _DONE
                self.at[lanes] = np.where(chosen, taken, now + 1)
                return False
            lanes = lanes[chosen]
            if not lanes.size:
                return True
        match step.name:
            case "bra":
                self.at[lanes] = self.kernel.labels[step.operands[0]]
                return False
            case "ret" | "exit":
                self.at[lanes] = _DONE
                return False
            case "bar":
                return self._wait(lanes, now, self.waits)
            case "barrier":
                return self._meet_cluster(step, lanes, now)
            case "call":
                return self._call(step, lanes, now)
            case "ld":
                self._load(step, lanes)
            case "st":
                self._store(step, lanes)
            case "mma":
                self._multiply(step, lanes)
            case "cvta":
                self._set(step.operands[0], self._get(step.operands[1], "u64", lanes), lanes)
            case "mov" if "<" in "".join(step.operands):
                self._pack(step, lanes)
            case name if name not in _NOTHING:
                result, kinds, function = operation(name, step.kinds)
                values = [self._get(o, kind, lanes) for o, kind in zip(step.operands[1:], kinds, strict=True)]
                self._set(step.operands[0], function(*values).astype(TYPES[result], copy=False), lanes)
        return True

    def _wait(self, lanes: Lanes, now: int, where: np.ndarray) -> bool:
        self.at[lanes], where[lanes] = now + 1, True
        return False

    def _meet_cluster(self, step: Instruction, lanes: Lanes, now: int) -> bool:
        """The two halves of a cluster's barrier, of which the first releases and the second acquires unless they say otherwise."""
        if step.kinds == ("cluster", "arrive"):
            self.arrived[lanes] = True
            return True
        if step.kinds != ("cluster", "wait"):
            raise Wrong("a barrier that this machine does not have")
        if not self.arrived[lanes].all():
            raise Wrong("waits at a cluster's barrier without having arrived there")
        self.arrived[lanes] = False
        return self._wait(lanes, now, self.waits_for_cluster)

    def _call(self, step: Instruction, lanes: Lanes, now: int) -> bool:
        """The functions of the device's runtime that make the grid's barrier."""
        result, function = step.operands[0].strip("()"), step.operands[1]
        self.parameters[result] = np.zeros(1, np.uint64)
        if function == "cudaCGGetIntrinsicHandle":
            return True
        if function != "cudaCGSynchronize" and function != "cudaCGSynchronizeGrid":
            raise Wrong(f"calls {function}, which this machine does not have")
        return self._wait(lanes, now, self.waits_for_all)

    def _load(self, step: Instruction, lanes: Lanes) -> None:
        space, kind, targets = self._space(step), step.kinds[-1], _elements(step.operands[0])
        if space == "param":
            value = self.parameters[_symbol(step.operands[1])].astype(np.uint64).view(TYPES[kind])[:1]
            self._set(targets[0], value, lanes)
            return
        for target, place in zip(targets, self._places(step, step.operands[1], len(targets), lanes), strict=True):
            self._set(target, self.spaces[space].load(place, TYPES[kind], lanes, self._clock(space)), lanes)

    def _store(self, step: Instruction, lanes: Lanes) -> None:
        space, kind, sources = self._space(step), step.kinds[-1], _elements(step.operands[1])
        if space == "param":  # of a call
            self.parameters[_symbol(step.operands[0])] = self._get(sources[0], kind, lanes)
            return
        for source, place in zip(sources, self._places(step, step.operands[0], len(sources), lanes), strict=True):
            self.spaces[space].store(place, self._for_each(source, kind, lanes), lanes, self._clock(space))

    def _places(self, step: Instruction, operand: str, count: int, lanes: Lanes) -> list[np.ndarray]:
        """Where each of `count` neighbouring elements is in a space, in which blocks and lanes have parts of their own."""
        found = re.fullmatch(r"\[([%$\w]+)(?:\+(-?\d+))?\]", operand)
        if found is None:
            raise Wrong(f"the address {operand} cannot be read")
        at = self._for_each(found[1], "s64", lanes) + int(found[2] or 0)
        size = np.dtype(TYPES[step.kinds[-1]]).itemsize
        if (at % (size * count)).any():
            raise Wrong(f"is not aligned to {size * count} bytes")
        space = self._space(step)
        if space != "global":
            most, part = self.own[space]
            if (at < 0).any() or (at + size * count > most).any():
                raise Wrong(f"is outside of {space} memory")
            at = at + part[lanes]
        return [at + i * size for i in range(count)]

    def _multiply(self, step: Instruction, lanes: Lanes) -> None:
        """A warp's matrix product."""
        if step.kinds != ("sync", "aligned", "m16n8k8", "row", "col", "f32", "tf32", "tf32", "f32"):
            raise Wrong("a matrix product that this machine does not have")
        left, right, plus = (
            np.stack([self._for_each(name, "f32", lanes) for name in _elements(operand)], axis=1)
            for operand in step.operands[1:]
        )
        if any((operand.view(np.uint32) & 0x1FFF).any() for operand in (left, right)):
            raise Wrong("an operand was not rounded to TensorFloat-32")
        sums = np.empty((lanes.size, 4), np.float32)
        for warp in np.unique(self.warp[lanes]):
            own = self.warp[lanes] == warp
            if own.sum() != WARP:
                raise Wrong("not all threads of a warp are there")
            sums[own] = mma_m16n8k8(left[own], right[own]) + plus[own]
        for i, name in enumerate(_elements(step.operands[0])):
            self._set(name, sums[:, i], lanes)

    def _pack(self, step: Instruction, lanes: Lanes) -> None:
        """mov between a register and several that have its parts."""
        to, source = step.operands
        whole = np.dtype(TYPES[step.kinds[-1]])
        names = _elements(to if to.startswith("<") else source)
        bits = whole.itemsize * 8 // len(names)
        if to.startswith("<"):
            parts = np.ascontiguousarray(self._for_each(source, step.kinds[-1], lanes)).view(f"uint{bits}")
            for i, name in enumerate(names):
                self._set(name, parts[i :: len(names)], lanes)
        else:
            parts = np.stack([self._for_each(name, f"b{bits}", lanes) for name in names], axis=1)
            self._set(to, parts.view(whole)[:, 0], lanes)

    def _clock(self, space: str) -> Clock:
        return self.clusters if space == "global" else self.clock

    # ---- operands

    def _space(self, step: Instruction) -> str:
        for space in ("param", "global", "shared", "local"):
            if space in step.kinds:
                return space
        raise Wrong("an address of any space, which this machine does not have")

    def _for_each(self, operand: str, kind: str, lanes: Lanes) -> np.ndarray:
        return np.broadcast_to(self._get(operand, kind, lanes), lanes.shape)

    def _get(self, operand: str, kind: str, lanes: Lanes) -> np.ndarray:
        """An operand's value for each lane; one number for a constant."""
        dtype = np.dtype(TYPES[kind])
        if operand in self.special:
            return self.special[operand][lanes].astype(dtype)
        if operand.startswith("%"):
            if operand not in self.registers:
                raise Wrong(f"reads {operand}, which nobody wrote")
            value = self.registers[operand][lanes]
            if value.dtype == dtype or dtype.itemsize == value.itemsize:
                return value.view(dtype)
            return value.astype(f"uint{dtype.itemsize * 8}").view(dtype)
        for symbols in (self.kernel.shared, self.kernel.local):
            if operand in symbols:
                return np.array([symbols[operand]], dtype)
        return _constant(operand, dtype)

    def _set(self, name: str, value: np.ndarray, lanes: Lanes) -> None:
        """Write a register, wider than the value perhaps: extended by its sign if that has one."""
        kind = self.kernel.registers[name.lstrip("%").rstrip("0123456789")]
        dtype = np.dtype(np.bool_ if kind == "pred" else f"uint{kind[1:]}")
        if value.dtype != dtype:
            if value.itemsize != dtype.itemsize:
                value = value.astype(f"{'int' if value.dtype.kind == 'i' else 'uint'}{dtype.itemsize * 8}")
            value = value.view(dtype)
        if lanes.size == self.count:
            self.registers[name] = np.broadcast_to(value, lanes.shape)
            return
        old = self.registers.get(name)
        new = np.zeros(self.count, dtype) if old is None else old.copy()
        new[lanes] = value
        self.registers[name] = new


def _rounded(count: int) -> int:
    """Bytes, up to where anything may start."""
    return -(-count // 16) * 16


def _elements(operand: str) -> list[str]:
    """The registers of a vector, or the one of a scalar."""
    return [name.strip() for name in operand.strip("<>").split(",")]


def _symbol(operand: str) -> str:
    """The name in [name+0]."""
    return operand.strip("[]").partition("+")[0]


@lru_cache(maxsize=4096)
def _constant(text: str, dtype: np.dtype) -> np.ndarray:
    if text[:2] in ("0f", "0d"):
        return np.array([int(text[2:], 16)], f"uint{len(text[2:]) * 4}").view(dtype)
    if dtype.kind == "b":
        return np.array([bool(int(text))])
    return np.array([int(text, 0) % (1 << 8 * dtype.itemsize)], f"uint{dtype.itemsize * 8}").view(dtype)
