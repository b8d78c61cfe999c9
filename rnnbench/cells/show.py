"""A cell as text for people: equation, gates, shapes, stages, derived gradient and the code that a backend runs."""

from __future__ import annotations

from collections.abc import Callable

from .emit import emit, plain, typed
from .program import Place, Program, Stage, program
from .trace import Cell

DIALECTS: dict[str, Callable[[float], str]] = {"numpy": plain, "numba-cpu": plain, "numba-cuda": typed}


def show(cell: Cell, backend: str = "numpy", hidden_size: int | None = None, input_size: int | None = None) -> str:
    """Everything that is derived from `cell`'s equation, as text.

    backend: numpy, numba-cpu or numba-cuda, for the dialect of the emitted code. hidden_size, input_size: numbers to print in the
    shapes instead of H and I. Raises ValueError for an unknown backend.
    """
    if backend not in DIALECTS:
        raise ValueError(f"there is no emitted code for the backend {backend!r}; there is for {', '.join(DIALECTS)}")
    H, I = hidden_size or "H", input_size or "I"
    inference, training = program(cell, False), program(cell, True)
    G, Q = len(cell.input_gates), len(cell.recurrent_gates)
    lines = [f"# {cell.name}", "", cell.equations.rstrip(), "", "## Structure", ""]
    lines.append(f"states            {', '.join(cell.states)}: ({H},) a row each, the output h first")
    lines.append(
        f"gates of x        {', '.join(cell.input_gates)}: weight_ih_l0 ({_times(G, H)}, {I}), bias_ih_l0 ({_times(G, H)},)"
    )
    if Q:
        gates = ", ".join(cell.recurrent_gates)
        lines.append(f"gates of R        {gates}: weight_hh_l0 ({_times(Q, H)}, {H}), bias_hh_l0 ({_times(Q, H)},)")
    if cell.vectors:
        lines.append(f"vectors           {', '.join(f'p_{v}_l0' for v in cell.vectors)}: ({H},) each")
    if cell.numbers:
        lines.append(f"numbers           {', '.join(f'{n} = {v:g}' for n, v in cell.numbers.items())}")
    saved = [training.place_name(Place("saved", i)) for i in range(len(training.saved))]
    lines.append(f"kept for BPTT     {len(saved)} values a unit and step besides the states" + _list(saved))
    lines.append(f"digest            {cell.digest}")
    for title, program_, stages in (
        ("Forward, inference", inference, inference.forward),
        ("Forward, training", training, training.forward),
        ("Backward: the derived gradient (d is an adjoint, back_v the products' R^T da)", training, training.backward),
    ):
        lines += ["", f"## {title} ({backend})", ""]
        for stage in stages:
            lines += [*_stage(program_, stage, DIALECTS[backend], backward=stages is training.backward), ""]
    return "\n".join(lines).rstrip() + "\n"


def _times(count: int, size: int | str) -> str:
    return str(count * size) if isinstance(size, int) else (f"{count}*{size}" if count > 1 else size)


def _list(names: list[str]) -> str:
    return f" ({', '.join(names)})" if names else ""


def _stage(p: Program, stage: Stage, constant: Callable[[float], str], backward: bool) -> list[str]:
    products = []
    for index in stage.operands:
        gates = ", ".join(str(p.pre[i].recurrent) for i in p.operands[index].pre)
        back = p.place_name(Place("back", index))
        if backward:
            products.append(f"# then the transposes: {back} = the sum over {gates} of R^T da")
        else:
            products.append(f"# first the products of R.{gates} with {back.removeprefix('back_')}")
    code = emit(p, stage.code, constant).rstrip().splitlines()
    return [*code, *products] if backward else [*products, *code]
