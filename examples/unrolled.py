"""Letters of Python's own documentation, read in chunks: an LSTM with a loss at every step, its state carried from chunk to chunk.

python examples/unrolled.py

The loop below is truncated backpropagation through time in full. `rnnbench example unrolled` runs it on a random source whose
best possible loss is known.
"""

import time

import numpy as np

from rnnbench.tasks.batches import windows
from rnnbench.tasks.optimisers import Adam, clip_by_global_norm
from rnnbench.tasks.text import default_text
from rnnbench.tasks.unrolled import Unrolled

B, T = 32, 50  # rows that are read side by side, steps in a chunk


def main(letters=400_000, hidden_size=128, backend="numba-cpu"):
    text = default_text()[:letters]
    alphabet = sorted(set(text))
    numbers = np.array([alphabet.index(letter) for letter in text])
    model, optimiser = Unrolled(len(alphabet), hidden_size, backend=backend), Adam(5e-3)
    print(
        f"{len(text):,} letters, {len(alphabet)} of them different: guessing has a loss of {np.log(len(alphabet)):.2f}"
    )

    start, state = time.perf_counter(), model.zero_state(B)
    chunks = zip(windows(numbers[:-1], B, T), windows(numbers[1:], B, T), strict=True)
    for chunk, (symbols, targets) in enumerate(chunks, 1):
        loss, gradients, state = model.gradients(symbols, targets, state)
        clip_by_global_norm(gradients, T)  # the loss is a sum over the steps, and so is its gradient
        optimiser.step(model.params, gradients)
        model.changed()
        if chunk % 25 == 0:
            rate = chunk * B * T / (time.perf_counter() - start)
            print(f"chunk {chunk}: loss {loss.mean:.2f} a letter, {rate:,.0f} letters/s")

    symbol, state, written = alphabet.index("T"), model.zero_state(1), []
    rng = np.random.default_rng(0)
    for _ in range(200):
        written.append(alphabet[symbol])
        logits, state = model.step(np.array([symbol]), state)
        symbol = (logits[0] + rng.gumbel(size=len(alphabet)) / 2).argmax()  # a draw from the softmax at temperature 1/2
    print("".join(written))


if __name__ == "__main__":
    main()
