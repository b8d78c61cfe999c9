"""A recurrent layer from PyTorch: the same numbers from rnnbench, both timed, and a file that no longer needs PyTorch.

python examples/from_pytorch.py

The two are timed in turn, so that what slows the machine down slows both; `rnnbench compare --backends numba-cpu,torch` measures
more carefully.
"""

import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch

from rnnbench.interop import from_torch, load_npz, save_npz, save_onnx

T, B, I, H = 100, 8, 64, 128


def seconds(call):
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def main(turns=30, backend="numba-cpu"):
    module = torch.nn.LSTM(I, H, num_layers=2, bidirectional=True)
    rnn = from_torch(module, backend=backend)
    print(rnn)

    x = np.random.default_rng(1).standard_normal((T, B, I)).astype("float32")
    output, (h_n, c_n) = rnn(x)
    with torch.inference_mode():
        expected, _ = module(torch.from_numpy(x))
        print(f"largest difference from PyTorch's output: {np.abs(output - expected.numpy()).max():.1e}")

        pairs = [(seconds(lambda: rnn(x)), seconds(lambda: module(torch.from_numpy(x)))) for _ in range(turns)]
    ours, theirs = (median(column) for column in zip(*pairs, strict=True))
    print(f"median of {turns} calls: rnnbench on {backend} {1e3 * ours:.2f} ms, PyTorch {1e3 * theirs:.2f} ms")

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "lstm.npz")
        save_npz(rnn, path)
        same = np.array_equal(load_npz(path, backend=backend)(x)[0], output)
        print(
            f"saved to {path.name} ({path.stat().st_size:,} bytes) and loaded: {'the same bits' if same else 'other numbers'}"
        )
        save_onnx(rnn, Path(folder, "lstm.onnx"))
        print("saved to lstm.onnx for ONNX Runtime")


if __name__ == "__main__":
    main()
