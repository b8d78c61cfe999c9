"""Synthetic data whose best possible loss is known exactly, so that training can be checked against a number.

Markov         the entropy rate: no model predicts the symbols better, and an LSTM has to come close
adding         1/6, the mean squared error of the best constant answer: to get below it, a model has to remember something
copy_memory    10 ln 8 / (T + 20), the loss of a model that knows when to answer but not what
"""

from __future__ import annotations

import math

import numpy as np

ADDING_FLOOR = 1 / 6
BLANK, DELIMITER, COPY_SYMBOLS = 8, 9, 10


class Markov:
    """A random source of symbols 0 to S-1, each drawn from a distribution that depends on the last `order` symbols.

    symbols: S. order: how many preceding symbols the next one depends on. seed: of the distributions. concentration: of the
    Dirichlet distribution that they are drawn from: the smaller, the more predictable. transition: (S^order, S), one distribution
    per context; a context is a number in base S whose last digit is the newest symbol. Raises ValueError for sizes that leave
    nothing to learn.
    """

    def __init__(self, symbols: int = 4, order: int = 2, seed: int = 0, concentration: float = 0.3) -> None:
        if symbols < 2 or order < 1 or not concentration > 0:
            raise ValueError(
                f"a source needs at least 2 symbols, order 1 and a concentration above 0, not {symbols}, {order}, {concentration}"
            )
        self.symbols, self.order = symbols, order
        rng = np.random.default_rng(seed)
        drawn = rng.dirichlet(np.full(symbols, concentration), size=symbols**order)
        # an irreducible chain has a unique stationary distribution
        self.transition = 0.98 * drawn + 0.02 / symbols

    def stationary(self) -> np.ndarray:
        """(S^order,): how often each context occurs in the long run."""
        contexts = len(self.transition)
        successors = (np.arange(contexts)[:, None] * self.symbols + np.arange(self.symbols)) % contexts
        chain = np.zeros((contexts, contexts))
        np.add.at(chain, (np.arange(contexts)[:, None], successors), self.transition)
        # solve pi (chain - 1) = 0 and sum pi = 1 together
        equations = np.vstack([chain.T - np.eye(contexts), np.ones(contexts)])
        return np.linalg.lstsq(equations, np.append(np.zeros(contexts), 1.0), rcond=None)[0]

    def entropy_rate(self, seen: int | None = None) -> float:
        """The lowest possible mean loss of predicting the next symbol, in nats; its exp is the lowest perplexity.

        seen: for a model that sees only the last `seen` symbols, from 0 to order; None for one that sees all of them.
        As in Cover and Thomas, Elements of Information Theory, theorem 4.2.4.
        """
        known = self.order if seen is None else seen
        if not 0 <= known <= self.order:
            raise ValueError(f"seen must lie between 0 and the order {self.order}, not {seen}")
        joint = self.stationary()[:, None] * self.transition
        # the newest symbols are the last digits, so older ones are summed over along the first axis
        joint = joint.reshape(-1, self.symbols**known, self.symbols).sum(axis=0)
        conditional = joint / joint.sum(axis=1, keepdims=True)
        return float(-(joint * np.log(conditional)).sum())

    def sample(self, seq_len: int, batch_size: int, seed: int) -> np.ndarray:
        """(T, B) symbols, each row an independent sequence from a random context on. seed: of the draws."""
        rng = np.random.default_rng(seed)
        cumulative = self.transition.cumsum(axis=1)
        context = rng.choice(len(self.transition), batch_size, p=self._law())
        draws = rng.random((seq_len, batch_size))
        result = np.empty((seq_len, batch_size), np.int64)
        for t in range(seq_len):
            result[t] = (draws[t, :, None] > cumulative[context, :-1]).sum(axis=1)
            context = (context * self.symbols + result[t]) % len(self.transition)
        return result

    def _law(self) -> np.ndarray:
        law = self.stationary().clip(0)
        return law / law.sum()


def adding(seq_len: int, batch_size: int, seed: int, dtype: str = "float32") -> tuple[np.ndarray, np.ndarray]:
    """The adding problem: x (T, B, 2) and its answers (B, 1).

    Channel 0 holds numbers from 0 to 1, channel 1 marks two of them, one in each half; the answer is the sum of these two. The best
    constant answer is 1, with the mean squared error 1/6 (`ADDING_FLOOR`). seed: of the numbers and marks.
    From Hochreiter and Schmidhuber, Long Short-Term Memory, 1997, experiment 4, in the form of Arjovsky, Shah, Bengio,
    arXiv:1511.06464. Raises ValueError for fewer than two steps.
    """
    if seq_len < 2:
        raise ValueError(f"two numbers are marked, so seq_len must be at least 2, not {seq_len}")
    rng = np.random.default_rng(seed)
    x = np.zeros((seq_len, batch_size, 2), dtype)
    x[:, :, 0] = rng.random((seq_len, batch_size))
    half, rows = seq_len // 2, np.arange(batch_size)
    first, second = rng.integers(half, size=batch_size), rng.integers(half, seq_len, size=batch_size)
    x[first, rows, 1] = x[second, rows, 1] = 1
    return x, (x[first, rows, 0] + x[second, rows, 0])[:, None]


def copy_memory(delay: int, batch_size: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """The copying problem: symbols (T + 20, B) and the expected answer at each step, in the same shape, for a delay of T.

    The input is ten symbols below 8, then T blanks (8), the last of them replaced by a delimiter (9), then ten blanks, during which
    the answer is the ten symbols; everywhere else the answer is blank. seed: of the symbols.
    From Arjovsky, Shah, Bengio, Unitary Evolution Recurrent Neural Networks, arXiv:1511.06464, section 5.1.
    Raises ValueError for a delay below 1.
    """
    if delay < 1:
        raise ValueError(f"the delimiter takes one step of the delay, which must be at least 1, not {delay}")
    shown = np.random.default_rng(seed).integers(BLANK, size=(COPY_SYMBOLS, batch_size))
    symbols = np.full((delay + 20, batch_size), BLANK)
    symbols[:COPY_SYMBOLS] = shown
    symbols[COPY_SYMBOLS + delay - 1] = DELIMITER
    answers = np.full_like(symbols, BLANK)
    answers[-COPY_SYMBOLS:] = shown
    return symbols, answers


def copy_memory_floor(delay: int) -> float:
    """10 ln 8 / (T + 20), the mean loss of a model that knows when to answer but guesses the ten symbols, for a `delay` of T."""
    return COPY_SYMBOLS * math.log(BLANK) / (delay + 20)
