"""How Keras, ONNX and TensorFlow 1 arrange a layer's parameters, and which layers PyTorch has. NumPy only, and permutations only,
except that biases may be added up: no other number is changed.

Ours (and PyTorch's) have a block of hidden_size rows for each gate, in the cell's own order: `weight_ih (G*H, I)`, `weight_hh
(G*H, H)`, and both biases. The tables below give the others' orders under our names of the gates, where g is what Keras and
ONNX call c and TensorFlow j, n what Keras and ONNX call h, z what TensorFlow calls u.

A gate that ONNX stores but a cell lacks (the forget gate where it is 1 - i) is stored as zeros and dropped on the way back.
Where the others have one bias, ours are added on the way out, and come back as `bias_ih` with a zero `bias_hh`.

On the way back the arrays' shapes are checked first, so that errors name a truncated or swapped array as the other library does.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from ..cells import BUILT_IN, Cell
from ..params import Spec

NamedArrays = dict[str, np.ndarray]

KERAS = {"lstm": "ifgo", "gru": "zrn", "rnn": "h"}
ONNX = {"lstm": "iofg", "gru": "zrn", "rnn": "h"}
ONNX_PEEPHOLES = "iof"
TF1 = {"lstm": "igfo", "gru": "rzn", "rnn": "h"}
# a cell's name -> the class in torch.nn and its options; parameters need no rearranging
TORCH: dict[str, tuple[str, dict[str, str]]] = {
    "rnn_tanh": ("RNN", {"nonlinearity": "tanh"}),
    "rnn_relu": ("RNN", {"nonlinearity": "relu"}),
    "lstm": ("LSTM", {}),
    "gru": ("GRU", {}),
}


def why_not_in_torch(spec: Spec) -> str | None:
    """Which of a network's features the layers of torch.nn lack, in a sentence, or None."""
    name = spec.cell.name
    if spec.cell is not BUILT_IN.get(name) or name not in TORCH:
        return f"PyTorch has no layer for the cell {name}; it has {', '.join(TORCH)}"
    if spec.reverse:
        return "PyTorch's layers read forwards or both ways, not backwards only"
    if spec.proj_size and name != "lstm":
        return f"PyTorch projects the output of an LSTM only, and the cell is {name} with proj_size {spec.proj_size}"
    if spec.proj_size == spec.hidden_size:
        return f"PyTorch projects to fewer units only; proj_size and hidden_size are both {spec.hidden_size}"
    return None


def forget_bias_in_biases(spec: Spec, params: Mapping[str, np.ndarray]) -> tuple[Spec, NamedArrays]:
    """The same network with its forget_bias added to the biases, for libraries that have no such number. A network without biases
    gets them if there is a forget_bias to add.

    Returns its spec, with a forget_bias of 0, and its params.
    """
    forget_bias, H = spec.numbers.get("forget_bias", 0.0), spec.hidden_size
    arrays = dict(params)
    if not forget_bias:
        return spec, arrays
    first = spec.cell.input_gates.index("f") * H
    for _, _, suffix in spec.suffixes():
        zero = np.zeros(len(spec.cell.input_gates) * H, spec.dtype)
        bias = arrays.get(f"bias_ih{suffix}", zero).copy()
        bias[first : first + H] += forget_bias
        arrays[f"bias_ih{suffix}"] = bias
        arrays.setdefault(f"bias_hh{suffix}", zero)
    return dataclasses.replace(spec, bias=True, numbers={**spec.numbers, "forget_bias": 0.0}), arrays


def family(cell: Cell) -> str:
    """The family that has the cell's gates: "lstm", "gru" or "rnn". Raises ValueError for a cell that no library stores."""
    for name, gates in KERAS.items():
        if set(cell.input_gates) | set(cell.recurrent_gates) <= set(gates):
            return name
    raise ValueError(
        f"the gates {', '.join(cell.input_gates)} of the cell {cell.name} are not those of an RNN, LSTM or GRU"
    )


def resets_after(cell: Cell) -> bool:
    """Whether all recurrent products are of plain states. In a GRU this means that the reset gate comes after the product."""
    return all(node.args[1].op == "state" for node in cell.order if node.op == "product")


# ---- Keras: kernel (I, G*H), recurrent_kernel (H, G*H), bias (G*H,), or (2, G*H) for a GRU with reset_after


def to_keras(spec: Spec, params: Mapping[str, np.ndarray], suffix: str = "_l0") -> list[np.ndarray]:
    """The parameters under `suffix` as `get_weights()` of one Keras LSTM, GRU or SimpleRNN gives them."""
    order = KERAS[family(spec.cell)]
    arrays = [_out(spec.cell, params, f"weight_{side}{suffix}", order).T for side in ("ih", "hh")]
    if spec.bias:
        both = np.stack([_out(spec.cell, params, f"bias_{side}{suffix}", order) for side in ("ih", "hh")])
        arrays.append(both if _two_biases(spec.cell) else both[0] + both[1])
    return [np.ascontiguousarray(array) for array in arrays]


def from_keras(cell: Cell, weights: Sequence[np.ndarray], suffix: str = "_l0") -> NamedArrays:
    """The reverse of `to_keras`: `get_weights()` of one Keras layer under our names with `suffix`.

    Raises ValueError, with both shapes, for an array that does not fit the others.
    """
    order = KERAS[family(cell)]
    rows = f"{len(order)}H"
    axes = {
        "kernel": ("I", rows),
        "recurrent_kernel": ("H", rows),
        "bias": ("2", rows) if _two_biases(cell) else (rows,),
    }
    _check_shapes(dict(zip(axes, weights, strict=False)), axes)
    params = {f"weight_ih{suffix}": weights[0].T, f"weight_hh{suffix}": weights[1].T}
    if len(weights) > 2:
        both = weights[2] if _two_biases(cell) else np.stack([weights[2], np.zeros_like(weights[2])])
        params |= {f"bias_ih{suffix}": both[0], f"bias_hh{suffix}": both[1]}
    return {name: _in(cell, name, array, order) for name, array in params.items()}


def _two_biases(cell: Cell) -> bool:
    return family(cell) == "gru" and resets_after(cell)


# ---- ONNX: W (D, G*H, I), R (D, G*H, H), B (D, 2*G*H) both biases joined, P (D, 3*H) peepholes


def to_onnx(spec: Spec, params: Mapping[str, np.ndarray], layer: int = 0) -> NamedArrays:
    """One layer's parameters as the inputs W, R, B and P of an ONNX node; B only with biases, P only with peepholes."""
    order, suffixes = ONNX[family(spec.cell)], [s for k, _, s in spec.suffixes() if k == layer]

    def stacked(name: str) -> np.ndarray:
        return np.stack([_out(spec.cell, params, f"{name}{suffix}", order) for suffix in suffixes])

    arrays = {"W": stacked("weight_ih"), "R": stacked("weight_hh")}
    if spec.bias:
        arrays["B"] = np.concatenate([stacked("bias_ih"), stacked("bias_hh")], axis=1)
    if spec.cell.vectors:
        vectors = [[params.get(f"p_{gate}{suffix}") for gate in ONNX_PEEPHOLES] for suffix in suffixes]
        zero = np.zeros(spec.hidden_size, arrays["W"].dtype)
        arrays["P"] = np.stack([np.concatenate([zero if v is None else v for v in one]) for one in vectors])
    return arrays


def from_onnx(cell: Cell, arrays: Mapping[str, np.ndarray], layer: int = 0) -> NamedArrays:
    """The reverse of `to_onnx`: the inputs W, R and perhaps B and P of a node under our names for that layer.

    Raises ValueError, with both shapes, for an array that does not fit the others.
    """
    order, params = ONNX[family(cell)], NamedArrays()
    G = len(order)
    _check_shapes(
        arrays, {"W": ("D", f"{G}H", "I"), "R": ("D", f"{G}H", "H"), "B": ("D", f"{2 * G}H"), "P": ("D", "3H")}
    )
    for direction, suffix in zip(range(len(arrays["W"])), (f"_l{layer}", f"_l{layer}_reverse"), strict=False):
        named = {"weight_ih": arrays["W"][direction], "weight_hh": arrays["R"][direction]}
        if "B" in arrays:
            named["bias_ih"], named["bias_hh"] = np.split(arrays["B"][direction], 2)
        params |= {f"{name}{suffix}": _in(cell, name, array, order) for name, array in named.items()}
        if cell.vectors:
            vectors = dict(zip(ONNX_PEEPHOLES, np.split(arrays["P"][direction], 3), strict=True))
            params |= {f"p_{vector}{suffix}": vectors[vector] for vector in cell.vectors}
    return params


# ---- TensorFlow 1: kernel ([x; h], G*H) and bias; a GRU's candidate is separate, and in two halves if the reset comes after

GATES, CANDIDATE = "gates", "candidate"
INPUT_SIDE, RECURRENT_SIDE = "candidate/input_projection", "candidate/hidden_projection"


def to_tf1(spec: Spec, params: Mapping[str, np.ndarray], suffix: str = "_l0") -> NamedArrays:
    """The parameters under `suffix` as a TensorFlow 1 cell's variables, named as they are below the cell's scope.

    kernel and bias; w_i_diag, w_f_diag, w_o_diag for peepholes; projection/kernel; for a GRU gates/ and candidate/, of which
    the latter is split into input_projection and hidden_projection where the reset comes after (CudnnCompatibleGRUCell).
    """
    cell, H, order = spec.cell, spec.hidden_size, _tf1_order(spec.cell)
    ih, hh = (_out(cell, params, f"weight_{side}{suffix}", order).T for side in ("ih", "hh"))
    if spec.bias:
        b_ih, b_hh = (_out(cell, params, f"bias_{side}{suffix}", order) for side in ("ih", "hh"))
    else:
        b_ih = b_hh = np.zeros(len(order) * H, ih.dtype)
    kernel, bias = np.concatenate([ih, hh]), b_ih + b_hh
    if family(cell) == "gru":
        arrays = {f"{GATES}/kernel": kernel[:, : 2 * H], f"{GATES}/bias": bias[: 2 * H]}
        if resets_after(cell):
            arrays |= {f"{INPUT_SIDE}/kernel": ih[:, 2 * H :], f"{INPUT_SIDE}/bias": b_ih[2 * H :]}
            arrays |= {f"{RECURRENT_SIDE}/kernel": hh[:, 2 * H :], f"{RECURRENT_SIDE}/bias": b_hh[2 * H :]}
        else:
            arrays |= {f"{CANDIDATE}/kernel": kernel[:, 2 * H :], f"{CANDIDATE}/bias": bias[2 * H :]}
    else:
        arrays = {"kernel": kernel, "bias": bias}
    arrays |= {f"w_{vector}_diag": params[f"p_{vector}{suffix}"] for vector in cell.vectors}
    if spec.proj_size:
        arrays["projection/kernel"] = params[f"weight_hr{suffix}"].T
    return {name: np.ascontiguousarray(array) for name, array in arrays.items()}


def from_tf1(
    cell: Cell, arrays: Mapping[str, np.ndarray], suffix: str = "_l0", called: Mapping[str, str] | None = None
) -> NamedArrays:
    """The reverse of `to_tf1`: the variables of a TensorFlow 1 cell under our names with `suffix`.

    arrays: name -> array, as `to_tf1` names them. suffix: of our names. called: name -> the user's name for it, where that
    differs. Raises ValueError, with the user's name and both shapes, for an array that does not fit the others.
    """
    order = _tf1_order(cell)
    _check_shapes(arrays, _tf1_axes(cell, len(order), "projection/kernel" in arrays), called)
    params: NamedArrays = {}
    if family(cell) == "gru":
        gates, gates_bias = arrays[f"{GATES}/kernel"], arrays[f"{GATES}/bias"]
        H = gates.shape[1] // 2
        I = len(gates) - H
        if resets_after(cell):
            ih = np.concatenate([gates[:I], arrays[f"{INPUT_SIDE}/kernel"]], axis=1)
            hh = np.concatenate([gates[I:], arrays[f"{RECURRENT_SIDE}/kernel"]], axis=1)
            b_ih = np.concatenate([gates_bias, arrays[f"{INPUT_SIDE}/bias"]])
            b_hh = np.concatenate([np.zeros_like(gates_bias), arrays[f"{RECURRENT_SIDE}/bias"]])
        else:
            kernel = np.concatenate([gates, arrays[f"{CANDIDATE}/kernel"]], axis=1)
            ih, hh = kernel[:I], kernel[I:]
            b_ih = np.concatenate([gates_bias, arrays[f"{CANDIDATE}/bias"]])
            b_hh = np.zeros_like(b_ih)
    else:
        kernel, b_ih = arrays["kernel"], arrays["bias"]
        H = kernel.shape[1] // len(order)
        projection = arrays.get("projection/kernel")
        I = len(kernel) - (H if projection is None else projection.shape[1])
        ih, hh, b_hh = kernel[:I], kernel[I:], np.zeros_like(b_ih)
        if projection is not None:
            params[f"weight_hr{suffix}"] = np.ascontiguousarray(projection.T)
    params |= {f"p_{vector}{suffix}": arrays[f"w_{vector}_diag"] for vector in cell.vectors}
    matrices = {"weight_ih": ih.T, "weight_hh": hh.T, "bias_ih": b_ih, "bias_hh": b_hh}
    return params | {f"{name}{suffix}": _in(cell, name, array, order) for name, array in matrices.items()}


def _tf1_order(cell: Cell) -> list[str]:
    """TensorFlow 1's order of the gates that the cell has: where i = 1 - f there is no block for i."""
    return [gate for gate in TF1[family(cell)] if gate in cell.input_gates]


def _tf1_axes(cell: Cell, gates: int, projection: bool) -> dict[str, tuple[str, ...]]:
    """The axes of the variables, for `_check_shapes`."""
    axes: dict[str, tuple[str, ...]] = {f"w_{vector}_diag": ("H",) for vector in cell.vectors}
    if family(cell) != "gru":
        recurrent = "P" if projection else "H"
        return {
            "kernel": (f"I+{recurrent}", f"{gates}H"),
            "bias": (f"{gates}H",),
            "projection/kernel": ("H", "P"),
            **axes,
        }
    axes |= {f"{GATES}/kernel": ("I+H", "2H"), f"{GATES}/bias": ("2H",)}
    if not resets_after(cell):
        return axes | {f"{CANDIDATE}/kernel": ("I+H", "H"), f"{CANDIDATE}/bias": ("H",)}
    axes |= {f"{INPUT_SIDE}/kernel": ("I", "H"), f"{INPUT_SIDE}/bias": ("H",)}
    return axes | {f"{RECURRENT_SIDE}/kernel": ("H", "H"), f"{RECURRENT_SIDE}/bias": ("H",)}


# ---- shapes

LETTERS = {"H": "hidden_size", "P": "proj_size", "I": "input_size", "D": "directions"}


def _check_shapes(
    arrays: Mapping[str, np.ndarray], axes: Mapping[str, tuple[str, ...]], called: Mapping[str, str] | None = None
) -> None:
    """Raise ValueError for the first array that does not fit the others, with its shape and the expected one.

    axes: name -> the size of each axis, a sum of terms such as "4H", "I" or "2". called: other names for the message. The value of
    a letter is the one that most axes agree on, so that a single truncated array does not make the others look wrong.
    """
    present = {name: (arrays[name].shape, sizes) for name, sizes in axes.items() if name in arrays}
    pairs = [
        pair for shape, sizes in present.values() if len(shape) == len(sizes) for pair in zip(shape, sizes, strict=True)
    ]
    known: dict[str, int] = {}
    for letter in LETTERS:
        said = []
        for length, size in pairs:
            rest, unknown = _sum(size, known)
            if [*unknown] == [letter] and length > rest and (length - rest) % unknown[letter] == 0:
                said.append((length - rest) // unknown[letter])
        if said:
            known[letter] = Counter(said).most_common(1)[0][0]
    for name, (shape, sizes) in present.items():
        sums = [_sum(size, known) for size in sizes]
        if len(shape) != len(sizes) or not all(map(_fits, shape, sums)):
            needed = ", ".join(_written(rest, unknown) for rest, unknown in sums) + "," * (len(sizes) == 1)
            raise ValueError(f"{(called or {}).get(name, name)} has shape {shape}, expected ({needed})")


def _fits(length: int, total: tuple[int, dict[str, int]]) -> bool:
    rest, unknown = total
    if not unknown:
        return length == rest
    # a letter that no axis determines may be any whole number from 1
    return length >= rest + sum(unknown.values()) and (length - rest) % math.gcd(*unknown.values()) == 0


def _sum(size: str, known: Mapping[str, int]) -> tuple[int, dict[str, int]]:
    """The known part of a sum such as "I+4H", and its unknown letters with their factors."""
    rest, unknown = 0, dict[str, int]()
    for term in size.split("+"):
        letter = term.lstrip("0123456789")
        factor = int(term.removesuffix(letter) or 1)
        if letter and letter not in known:
            unknown[letter] = factor
        else:
            rest += factor * known.get(letter, 1)
    return rest, unknown


def _written(rest: int, unknown: Mapping[str, int]) -> str:
    terms = [LETTERS[letter] if factor == 1 else f"{factor}*{LETTERS[letter]}" for letter, factor in unknown.items()]
    return " + ".join([*terms, str(rest)] if rest or not terms else terms)


# ---- blocks


def _gates(cell: Cell, name: str) -> tuple[str, ...]:
    """The gates whose blocks a parameter holds: those of the input projection or those of the recurrent product."""
    return cell.input_gates if "_ih" in name else cell.recurrent_gates


def _out(cell: Cell, params: Mapping[str, np.ndarray], name: str, order: Sequence[str]) -> np.ndarray:
    return _reorder(params[name], _gates(cell, name), order)


def _in(cell: Cell, name: str, array: np.ndarray, order: Sequence[str]) -> np.ndarray:
    return _reorder(array, order, _gates(cell, name))


def _reorder(array: np.ndarray, present: Sequence[str], wanted: Sequence[str]) -> np.ndarray:
    """Reorder the blocks of the first axis, one for each gate in `present`, as in `wanted`; a gate that is not there gets zeros."""
    blocks = dict(zip(present, np.split(array, len(present)), strict=True))
    zero = np.zeros_like(next(iter(blocks.values())))
    return np.ascontiguousarray(np.concatenate([blocks.get(gate, zero) for gate in wanted]))
