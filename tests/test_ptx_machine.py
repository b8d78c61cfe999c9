"""The machine that runs PTX where there is no GPU: what it computes, and that it sees each kind of wrong program."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ptx_machine import launch
from ptx_memory import DeviceMemory, Wrong
from ptx_operations import mma_m16n8k8, operation
from ptx_text import Kernel, read

# thread i's number in %r4, the address of element i of the first array in %rd2, and of the second in %rd4
START = """
    ld.param.u64 %rd1, [p0]; ld.param.u64 %rd3, [p1];
    cvta.to.global.u64 %rd1, %rd1;
    mov.u32 %r1, %ctaid.x; mov.u32 %r2, %ntid.x; mov.u32 %r3, %tid.x;
    mad.lo.s32 %r4, %r1, %r2, %r3;
    mul.wide.u32 %rd5, %r4, 4;
    add.s64 %rd2, %rd1, %rd5; add.s64 %rd4, %rd3, %rd5;
"""
SHARED = ".shared .align 16 .b8 parts[256];"


def kernel(body: str) -> Kernel:
    """Of two arrays and a number."""
    return read(f"""
.version 9.0
.target sm_90
{SHARED}
.visible .entry kernel(
    .param .u64 p0,
    .param .u64 p1,
    .param .u32 p2
)
.maxntid 64, 1, 1
{{
    .reg .pred %p<9>;
    .reg .f32 %f<20>;
    .reg .b32 %r<20>;
    .reg .b64 %rd<20>;
    {START}
    {body}
    ret;
}}
""")


class Arrays:
    """Two arrays of float32 on a device, and what a kernel made of them."""

    def __init__(self, size: int) -> None:
        self.memory, self.size = DeviceMemory(1 << 14), size
        self.at = [self.memory.allocate(4 * size) for _ in range(2)]
        for at in self.at:
            self.array(at)[:] = np.arange(size)
            self.memory.copied(at, 4 * size)

    def array(self, at: int) -> Any:
        first = at - self.memory.base
        return self.memory.bytes[first : first + 4 * self.size].view(np.float32)

    def run(self, body: str, blocks: int = 1, threads: int = 8, number: int = 0, cluster: int = 1) -> Any:
        """The second array after a kernel has run."""
        launch(kernel(body), self.memory, (blocks,), (threads,), [*self.at, number], cluster)
        return self.array(self.at[1])


def test_every_thread_of_every_block_runs() -> None:
    found = Arrays(10).run(
        """ld.param.u32 %r5, [p2]; setp.ge.s32 %p1, %r4, %r5; @%p1 bra $END;
        ld.global.f32 %f1, [%rd2]; fma.rn.f32 %f1, %f1, 0f40000000, 0f3F800000; st.global.f32 [%rd4], %f1;
        $END:""",
        blocks=2, number=9,
    )  # fmt: skip
    assert found.tolist() == [1 + 2 * i for i in range(9)] + [9]


def test_threads_that_part_meet_again() -> None:
    """Thread i goes round i times; all of them are behind the loop when they meet at the barrier."""
    found = Arrays(8).run(
        """mov.u32 %r5, 0; mov.u32 %r6, %r3;
        $ROUND: setp.eq.s32 %p1, %r6, 0; @%p1 bra $DONE;
        add.s32 %r5, %r5, 2; add.s32 %r6, %r6, -1; bra.uni $ROUND;
        $DONE: bar.sync 0; cvt.rn.f32.s32 %f1, %r5; st.global.f32 [%rd4], %f1;"""
    )
    assert found.tolist() == [2 * i for i in range(8)]


EXCHANGE = """
    shl.b32 %r5, %r3, 2; sub.s32 %r6, 28, %r5; mov.u32 %r7, parts;
    add.s32 %r8, %r7, %r5; add.s32 %r9, %r7, %r6; cvt.rn.f32.u32 %f1, %r3;
    st.shared.f32 [%r8], %f1; {} ld.shared.f32 %f2, [%r9]; {} st.global.f32 [%rd4], %f2;
"""


def test_threads_exchange_numbers_at_a_barrier_and_race_without() -> None:
    assert Arrays(8).run(EXCHANGE.format("bar.sync 0;", "")).tolist() == list(range(8))[::-1]
    with pytest.raises(Wrong, match="reads shared memory that another thread writes.*a race"):
        Arrays(8).run(EXCHANGE.format("", ""))


def test_what_is_read_may_not_be_written_before_a_barrier() -> None:
    again = "st.shared.f32 [%r8], %f2;"
    assert Arrays(8).run(EXCHANGE.format("bar.sync 0;", "bar.sync 0;" + again)).tolist() == list(range(8))[::-1]
    with pytest.raises(Wrong, match=r"st\.shared.*writes shared memory that another thread reads.*a race"):
        Arrays(8).run(EXCHANGE.format("bar.sync 0;", again))


@pytest.mark.parametrize(("value", "races"), [("0f3F800000", False), ("%f1", True)])
def test_two_writes_race_unless_they_are_the_same(value: str, races: bool) -> None:
    body = f"cvt.rn.f32.u32 %f1, %r3; mov.u32 %r5, parts; st.shared.f32 [%r5], {value};"
    if not races:
        Arrays(8).run(body)
        return
    with pytest.raises(Wrong, match="a race"):
        Arrays(8).run(body)


@pytest.mark.parametrize("value", ["0f00000000", "%f1"])
def test_two_writes_one_after_the_other_race(value: str) -> None:
    """Thread 0 writes, then thread 1 to the same place: another value, or what is there already."""
    body = f"""cvt.rn.f32.u32 %f1, %r3; mov.u32 %r5, parts; setp.ne.s32 %p1, %r3, 0;
    @!%p1 st.shared.f32 [%r5], 0f00000000; @%p1 st.shared.f32 [%r5], {value};"""
    if value == "%f1":
        with pytest.raises(Wrong, match="a race"):
            Arrays(2).run(body, threads=2)
    else:
        Arrays(2).run(body, threads=2)


GRID = """
    add.f32 %f2, 0f00000000, 0f40000000; st.global.f32 [%rd2], %f2; {}
    setp.ne.s32 %p1, %r4, 0; @%p1 bra $END; ld.global.f32 %f3, [%rd2+32]; st.global.f32 [%rd4], %f3; $END:
"""
MEET = """{ .reg .b32 temp_param_reg; .param .b32 param0; st.param.b32 [param0+0], 1; .param .b64 retval0;
    call.uni (retval0), cudaCGGetIntrinsicHandle, (param0); ld.param.b64 %rd9, [retval0+0]; }
    { .param .b64 param0; st.param.b64 [param0+0], %rd9; .param .b32 param1; st.param.b32 [param1+0], 0; .param .b32 retval0;
    call.uni (retval0), cudaCGSynchronize, (param0, param1); ld.param.b32 %r9, [retval0+0]; }"""


def test_blocks_exchange_numbers_at_the_grids_barrier_and_race_at_their_own() -> None:
    assert Arrays(16).run(GRID.format(MEET), blocks=2)[0] == 2
    with pytest.raises(Wrong, match="reads global memory that another thread writes"):
        Arrays(16).run(GRID.format("bar.sync 0;"), blocks=2)


CLUSTER = "barrier.cluster.arrive; barrier.cluster.wait;"


def test_blocks_of_a_cluster_exchange_numbers_at_its_barrier_and_race_with_others() -> None:
    """Thread 0 of the first block reads what the second block wrote: of its cluster, or of the next."""
    assert Arrays(32).run(GRID.format(CLUSTER), blocks=4, cluster=2)[0] == 2
    for cluster, barrier in ((1, CLUSTER), (2, ""), (2, "bar.sync 0;"), (2, "barrier.cluster.arrive;")):
        with pytest.raises(Wrong, match="a race"):
            Arrays(32).run(GRID.format(barrier), blocks=4, cluster=cluster)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("barrier.cluster.wait;", "without having arrived there"),
        ("barrier.cluster.arrive.relaxed;", "a barrier that this machine does not have"),
        (f"setp.ne.s32 %p1, %r1, 0; @%p1 bra $END; {CLUSTER} $END:", "threads of a cluster wait at a barrier"),
    ],
)
def test_a_wrong_use_of_a_clusters_barrier_is_found(body: str, message: str) -> None:
    with pytest.raises(Wrong, match=message):
        Arrays(16).run(body, blocks=2, cluster=2)
    with pytest.raises(Wrong, match="3 blocks are no whole number of clusters of 2"):
        Arrays(32).run("", blocks=3, cluster=2)


def test_many_readers_are_remembered() -> None:
    """All threads read element 0; then one writes it, which only a barrier of all of them allows."""
    body = """ld.global.f32 %f1, [%rd1]; {} setp.ne.s32 %p1, %r4, {}; @%p1 bra $END; st.global.f32 [%rd1], 0f40000000; $END:"""
    for thread in (0, 7, 15):
        Arrays(16).run(body.format(MEET, thread), blocks=2)
        with pytest.raises(Wrong, match="a race"):
            Arrays(16).run(body.format("bar.sync 0;", thread), blocks=2)
    Arrays(8).run(body.format("bar.sync 0;", 3))
    with pytest.raises(Wrong, match="a race"):
        Arrays(8).run(body.format("", 3))


def test_one_launch_follows_another() -> None:
    arrays = Arrays(8)
    arrays.run("ld.global.f32 %f1, [%rd2]; neg.f32 %f1, %f1; st.global.f32 [%rd4], %f1;")
    reverse = "mov.u32 %r5, 7; sub.s32 %r5, %r5, %r4; mul.wide.u32 %rd6, %r5, 4; add.s64 %rd6, %rd3, %rd6;"
    found = arrays.run(reverse + "ld.global.f32 %f1, [%rd6]; bar.sync 0; st.global.f32 [%rd4], %f1;")
    assert found.tolist() == [-i for i in range(8)][::-1]


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("ld.global.f32 %f1, [%rd2+4];", "outside of global memory"),
        ("ld.global.f32 %f1, [%rd2+-4];", "outside of global memory"),
        ("ld.global.f32 %f1, [%rd2+2];", "not aligned to 4 bytes"),
        ("ld.global.v2.f32 <%f1, %f2>, [%rd2];", "not aligned to 8 bytes"),
        ("mov.u32 %r5, parts; ld.shared.f32 %f1, [%r5];", "reads shared memory that nobody wrote"),
        ("mov.u32 %r5, parts; st.shared.f32 [%r5+256], 0f00000000;", "outside of shared memory"),
        ("add.f32 %f1, %f2, %f2;", "reads %f2, which nobody wrote"),
        ("div.s32 %r5, %r4, 0;", "divided by zero"),
        ("popc.b32 %r5, %r4;", "this machine does not know 'popc'"),
        ("call.uni (retval0), vprintf, (param0);", "calls vprintf"),
        ("setp.ne.s32 %p1, %r3, 0; @%p1 bra $END; bar.sync 0; $END:", "others never come there"),
        ("setp.ne.s32 %p1, %r3, 0; @%p1 bra $B; bar.sync 0; bra.uni $END; $B: bar.sync 0; $END:", "others never come"),
    ],
)  # fmt: skip
def test_a_wrong_program_is_found(body: str, message: str) -> None:
    with pytest.raises(Wrong, match=message):
        Arrays(8).run(body.replace("<", "{").replace(">", "}"))


def test_a_barrier_that_one_block_never_reaches_is_found() -> None:
    with pytest.raises(Wrong, match="wait at the grid's barrier"):
        Arrays(16).run(f"setp.ne.s32 %p1, %r1, 0; @%p1 bra $END; {MEET} $END:", blocks=2)


def test_memory_that_was_given_back_is_found() -> None:
    arrays = Arrays(8)
    arrays.memory.free(arrays.at[0])
    with pytest.raises(Wrong, match="outside of global memory"):
        arrays.run("ld.global.f32 %f1, [%rd2];")
    assert arrays.memory.allocate(32) == arrays.at[0], "the same place, for a block of the same size"
    with pytest.raises(Wrong, match="nobody wrote"):
        arrays.run("ld.global.f32 %f1, [%rd2];")
    with pytest.raises(MemoryError, match="too small"):
        arrays.memory.allocate(1 << 20)


def test_vectors_and_parts_of_registers() -> None:
    found = Arrays(8).run(
        """setp.ne.s32 %p1, %r3, 0; @%p1 bra $END;
        ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd2+16]; st.global.v2.f32 [%rd4], {%f4, %f1};
        mov.b64 %rd6, {%r4, %r2}; mov.b64 {%r5, %r6}, %rd6; cvt.rn.f32.u32 %f5, %r6; st.global.f32 [%rd4+8], %f5;
        $END:"""
    )
    assert found[:4].tolist() == [7, 4, 8, 3]


def test_a_warps_product() -> None:
    """Lane l holds l in its share of A and 1 in that of B."""
    body = """cvt.rn.f32.u32 %f1, %r3; cvt.rna.tf32.f32 %r5, %f1; mov.b32 %r6, 0f3F800000; mov.f32 %f2, 0f41200000;
    mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%f3, %f4, %f5, %f6}, {%r5, %r5, %r5, %r5}, {%r6, %r6},
        {%f2, %f2, %f2, %f2};
    st.global.f32 [%rd4], %f5;"""
    shares = np.arange(32.0)[:, None].repeat(4, 1)
    expected = mma_m16n8k8(shares, np.ones((32, 2)))[:, 2] + 10
    assert Arrays(32).run(body, threads=32).tolist() == expected.tolist()
    with pytest.raises(Wrong, match="not all threads of a warp"):
        Arrays(32).run(body, threads=31)
    with pytest.raises(Wrong, match="not rounded to TensorFloat-32"):
        Arrays(32).run(body.replace("0f3F800000", "0f3F800001"), threads=32)


def computed(instruction: str, *operands: Any) -> Any:
    name, *kinds = instruction.split(".")
    result, types, function = operation(name, tuple(kinds))
    dtypes = [operation("mov", (kind,))[2](np.zeros(1, np.dtype(_dtype(kind)))).dtype for kind in types]
    values = [np.array([value], dtype) for value, dtype in zip(operands, dtypes, strict=True)]
    with np.errstate(all="ignore"):
        return function(*values).astype(_dtype(result))[0]


@pytest.mark.parametrize("instruction", ["add.rp.f32", "add.rm.f32", "add.sat2.f32", "popc.b32"])
def test_an_instruction_that_is_not_known_is_refused(instruction: str) -> None:
    name, *kinds = instruction.split(".")
    with pytest.raises(KeyError, match=kinds[0] if len(kinds) == 2 else name):
        operation(name, tuple(kinds))


def _dtype(kind: str) -> Any:
    return {"f": "float", "s": "int", "u": "uint", "b": "uint"}[kind[0]] + kind[1:] if kind != "pred" else "bool"


NAN, INF = float("nan"), float("inf")


@pytest.mark.parametrize(
    ("instruction", "operands", "result"),
    [
        ("add.s32", (2**31 - 1, 1), -(2**31)),
        ("sub.u32", (0, 1), 2**32 - 1),
        ("mul.lo.s32", (2**20, 2**20), 0),
        ("mul.hi.u32", (2**31, 6), 3),
        ("mul.hi.s64", (-(2**62), 8), -2),
        ("mul.wide.s32", (-(2**31), 2), -(2**32)),
        ("mul.wide.u32", (2**31, 2), 2**32),
        ("mad.wide.s32", (3, -4, 5), -7),
        ("div.s32", (-7, 2), -3),
        ("rem.s32", (-7, 2), -1),
        ("div.u64", (7, 2), 3),
        ("shl.b32", (1, 32), 0),
        ("shl.b32", (3, 31), 2**31),
        ("shr.s32", (-8, 40), -1),
        ("shr.u32", (8, 40), 0),
        ("shr.s64", (-8, 2), -2),
        ("not.b32", (0,), 2**32 - 1),
        ("max.f32", (NAN, 1.0), 1.0),
        ("min.s32", (-1, 1), -1),
        ("setp.lt.f32", (NAN, 1.0), False),
        ("setp.ltu.f32", (NAN, 1.0), True),
        ("setp.neu.f32", (NAN, NAN), True),
        ("setp.ne.f32", (NAN, NAN), False),
        ("setp.lt.and.s32", (1, 2, False), False),
        ("selp.b32", (1, 2, False), 2),
        ("fma.rn.f32", (1 + 2.0**-12, 1 - 2.0**-12, -1.0), -(2.0**-24)),
        ("fma.rm.f32", (2.0**-30, 1.0, -1.0), -1.0),
        ("fma.rm.f32", (-(2.0**-30), 1.0, 1.0), 1 - 2.0**-24),
        ("cvt.sat.f32.f32", (1.5,), 1.0),
        ("cvt.sat.f32.f32", (-0.5,), 0.0),
        ("cvt.sat.f32.f32", (NAN,), 0.0),
        ("cvt.rzi.s32.f32", (-1.5,), -1),
        ("cvt.rzi.s32.f32", (1e10,), 2**31 - 1),
        ("cvt.rni.s32.f32", (2.5,), 2),
        ("cvt.rzi.s32.f32", (NAN,), 0),
        ("cvt.rmi.f32.f32", (-1.5,), -2),
        ("cvt.s64.s32", (-1,), -1),
        ("cvt.u64.u32", (2**32 - 1,), 2**32 - 1),
        ("cvt.u16.u32", (2**16 + 3,), 3),
        ("cvt.rn.f32.f64", (1 + 2.0**-30,), 1.0),
        ("ex2.approx.ftz.f32", (3.0,), 8.0),
        ("rcp.rn.f32", (4.0,), 0.25),
        ("div.rn.f32", (-1.0, 0.0), -INF),
        ("sqrt.rn.f64", (4.0,), 2.0),
        ("lg2.approx.f32", (8.0,), 3.0),
    ],
)  # fmt: skip
def test_an_instruction_computes(instruction: str, operands: tuple[Any, ...], result: Any) -> None:
    assert computed(instruction, *operands) == result


@given(st.integers(-(2**31), 2**31 - 1), st.integers(-(2**31), 2**31 - 1).filter(bool))
def test_quotient_and_remainder_belong_together(a: int, b: int) -> None:
    if (a, b) != (-(2**31), -1):
        quotient, remainder = int(computed("div.s32", a, b)), int(computed("rem.s32", a, b))
        assert quotient * b + remainder == a and abs(remainder) < abs(b) and remainder * a >= 0


def test_text_that_cannot_be_read_is_quoted() -> None:
    with pytest.raises(ValueError, match=r"cannot read this PTX: '\.branchtargets x'"):
        kernel(".branchtargets x;")
    with pytest.raises(ValueError, match="no kernel"):
        read(".version 9.0")
