"""An LSTM unrolled over a chunk of a long sequence, with a loss at every step and a state that is carried into the next chunk.

That is truncated backpropagation through time: the state's values are carried across chunk boundaries, its gradient is not.
Source: Williams and Peng, An Efficient Gradient-Based Algorithm for On-Line Training of Recurrent Network
Trajectories, 1990; the loss is summed over the steps, as TensorFlow 1's tutorials have it.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from ..rnn import RNN
from .layers import Dense, Embedding, Gradients, Params, Recurrent
from .losses import Loss, softmax_cross_entropy
from .optimisers import Adam, Optimiser
from .sources import Markov

State = tuple[np.ndarray, ...]


class Unrolled:
    """An embedding, an LSTM and a fully connected output layer: one prediction per step.

    symbols: S, how many there are. hidden_size: also the embedding's width. backend, dtype: of the RNN. seed: of all parameters.
    Attribute params: name -> array, for an optimiser to change, after which `changed` has to be called.
    """

    def __init__(
        self, symbols: int, hidden_size: int, backend: str = "numba-cpu", dtype: str = "float32", seed: int = 0
    ) -> None:
        rng = np.random.default_rng(seed)
        self.embedding = Embedding("embedding", symbols, hidden_size)
        self.recurrent = Recurrent(
            "rnn", RNN("lstm", hidden_size, hidden_size, backend=backend, dtype=dtype, seed=seed, forget_bias=1.0)
        )
        self.output = Dense("output", hidden_size, symbols)
        self.params: Params = {
            **self.embedding.initialise(rng, dtype),
            **self.recurrent.initialise(),
            **self.output.initialise(rng, dtype),
        }

    def changed(self) -> None:
        """Has to be called after the values of `params` have changed."""
        self.recurrent.load(self.params)

    def zero_state(self, batch_size: int) -> State:
        """(h, c), each (1, B, H), before the first chunk."""
        spec = self.recurrent.rnn.spec
        return tuple(np.zeros((1, batch_size, width), spec.dtype) for width in spec.state_sizes)

    def step(self, symbols: np.ndarray, state: State) -> tuple[np.ndarray, State]:
        """One step: logits (B, S) for what follows symbols (B,), and the state after them. state: as in `gradients`."""
        output, final = self.recurrent.infer(self.embedding.forward(self.params, symbols[None]), state)
        return self.output.forward(self.params, output[0]), final

    def loss(self, symbols: np.ndarray, targets: np.ndarray, state: State) -> tuple[Loss, State]:
        """The loss over a chunk and the state after it. The arguments are those of `gradients`."""
        output, final = self.recurrent.infer(self.embedding.forward(self.params, symbols), state)
        return softmax_cross_entropy(self.output.forward(self.params, output), targets)[0], final

    def gradients(self, symbols: np.ndarray, targets: np.ndarray, state: State) -> tuple[Loss, Gradients, State]:
        """The loss over all steps, the gradients, and the state to pass to the next chunk.

        symbols, targets: (T, B). state: from `zero_state`, or what the previous chunk returned. The gradients are those of the loss
        summed over the steps and averaged over the rows.
        """
        embedded = self.embedding.forward(self.params, symbols)
        output, final, tape = self.recurrent.forward(embedded, state)
        logits = self.output.forward(self.params, output)
        loss, dlogits = softmax_cross_entropy(logits, targets, scale=1 / symbols.shape[1])
        doutput, found = self.output.backward(self.params, output, dlogits)
        # no gradient arrives from the next chunk, and the gradient of the initial state is dropped
        dembedded, _, recurrent = self.recurrent.backward(tape, doutput)
        return loss, found | recurrent | self.embedding.backward(symbols, dembedded), final


def train(model: Unrolled, symbols: np.ndarray, seq_len: int, optimiser: Optimiser) -> Iterator[Loss]:
    """Train once through long sequences, chunk by chunk; yields each chunk's loss before the update on that chunk.

    model: to be trained. symbols: (N, B), B sequences side by side, each symbol the target of the one before. seq_len: steps in a
    chunk; an incomplete last chunk is dropped. optimiser: of the parameters.
    """
    state = model.zero_state(symbols.shape[1])
    for start in range(0, len(symbols) - seq_len, seq_len):
        chunk = symbols[start : start + seq_len + 1]
        loss, gradients, state = model.gradients(chunk[:-1], chunk[1:], state)
        optimiser.step(model.params, gradients)
        model.changed()
        yield loss


def lines(backend: str) -> Iterator[str]:
    """Trains on a random source whose entropy rate is known, and prints how close to it the loss comes."""
    source = Markov(symbols=4, order=2, seed=0)
    least, memoryless = source.entropy_rate(), source.entropy_rate(seen=1)
    yield f"predict a random source of 4 symbols; the loss is in nats a symbol, guessing has {np.log(4):.4f}"
    model, optimiser = Unrolled(source.symbols, 32, backend=backend), Adam(1e-2)
    recent: list[Loss] = []
    for chunk, loss in enumerate(train(model, source.sample(4001, 32, seed=1), 10, optimiser), 1):
        recent.append(loss)
        if chunk % 50 == 0:
            yield f"chunk {chunk:3}: loss {sum(recent, Loss()).mean:.4f}"
            recent.clear()
    fresh = source.sample(2001, 32, seed=2)
    held_out, _ = model.loss(fresh[:-1], fresh[1:], model.zero_state(32))
    yield f"fresh symbols: loss {held_out.mean:.4f}"
    yield f"the source's entropy rate, which no model can beat: {least:.4f}; for one that knows a single symbol: {memoryless:.4f}"
