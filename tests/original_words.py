"""The word language model that this project grew from, as slow as it was: an oracle for ours, and the baseline of its speed.

One sentence, one word and one gate at a time, every gradient as large as its matrix. It is the LSTM of a widely copied NumPy
tutorial, told again in our own words and with its mistakes as switches: with none of them it is right, which finite differences
show, and with all of them (`ORIGINAL`) it is the program that the tutorial's losses came from.

python tests/original_words.py     # how many words a second it learns from, with 8,000 words and 100 units

Arrays: H units, V words, T steps. x, y: lists of T word numbers; y is x one step later. Shares no line with rnnbench.
"""

from __future__ import annotations

import time

import numpy as np

GATES = "ifao"  # a is the candidate, which PyTorch calls g
FAULTS = {
    "cell": "on its way to step t-1 the cell's gradient is not multiplied by the forget gate",
    "hidden": "at step t-1 the hidden state's gradient lacks what came through the gates of step t",
    "column": "the word's number multiplies every column of the input weights' gradient, where one column should be selected",
    "initial": "the spare last slot stands for the state before the first step, whatever is in it",
    "outer": "the recurrent weights' gradient is da * h, element by element and the same in every column, not the outer product",
}
ORIGINAL = frozenset(FAULTS)


class OriginalWords:
    """The tutorial's LSTM and softmax. words V, hidden_size H. faults: those of FAULTS to make; none of them: right.

    reuse: keep the arrays of the states from call to call, as large as the longest sentence so far, and work in a part of them.
    """

    def __init__(self, words, hidden_size=100, seed=10, faults=(), reuse=False):
        unknown = set(faults) - set(FAULTS)
        if unknown:
            raise ValueError(f"there are no faults {sorted(unknown)}; known are {', '.join(FAULTS)}")
        self.words, self.hidden_size, self.faults, self.reuse = words, hidden_size, frozenset(faults), reuse
        rng, bound = np.random.default_rng(seed), np.sqrt(1 / hidden_size)
        shapes = {}
        for gate in GATES:
            shapes |= {f"R_{gate}": (hidden_size, hidden_size), f"W_{gate}": (hidden_size, words)}
            shapes[f"b_{gate}"] = (hidden_size, 1)
        shapes |= {"W_y": (words, hidden_size), "b_y": (words, 1)}
        self.params = {name: rng.uniform(-bound, bound, shape) for name, shape in shapes.items()}
        self._kept = {}

    def forward(self, x, h_0=None, c_0=None):
        """States by name, slot t for step t and slot -1 for what was before: i, f, a, o, h, c (T+1, H, 1) and y (T, V, 1)."""
        p, T = self.params, len(x)
        states = self._slots(T)
        if "initial" not in self.faults:
            for name, value in (("h", h_0), ("c", c_0)):
                states[name][-1] = 0 if value is None else np.reshape(value, (-1, 1))
        for t in range(T):
            h, c = states["h"][t - 1], states["c"][t - 1]
            for gate in GATES:
                before = p[f"R_{gate}"] @ h + p[f"W_{gate}"][:, x[t], None] + p[f"b_{gate}"]
                states[gate][t] = np.tanh(before) if gate == "a" else 1 / (1 + np.exp(-before))
            states["c"][t] = states["f"][t] * c + states["i"][t] * states["a"][t]
            states["h"][t] = states["o"][t] * np.tanh(states["c"][t])
            logits = p["W_y"] @ states["h"][t] + p["b_y"]
            exponentials = np.exp(logits - logits.max())
            states["y"][t] = exponentials / exponentials.sum()
        return states

    def _slots(self, T):
        if self.reuse and self._kept and len(self._kept["y"]) >= T:
            kept = self._kept
        else:
            kept = {name: np.zeros((T + 1, self.hidden_size, 1)) for name in (*GATES, "h", "c")}
            kept["y"] = np.zeros((T, self.words, 1))
        self._kept = kept if self.reuse else {}
        return {name: array[: T if name == "y" else T + 1] for name, array in kept.items()}

    def loss(self, x, y, h_0=None, c_0=None):
        """Minus the logarithm of the probability of each next word, summed over the steps."""
        probabilities = self.forward(x, h_0, c_0)["y"]
        return -float(sum(np.log(probabilities[t, word, 0]) for t, word in enumerate(y)))

    def gradients(self, x, y, h_0=None, c_0=None, inputs=False):
        """Of `loss`, under the parameters' names and "h_0" and "c_0" (H,); right or with the faults that were asked for. With
        inputs also "x" (T, V), of the words as one-hot vectors, which the tutorial has no use for.
        """
        p, faults, H = self.params, self.faults, self.hidden_size
        s = self.forward(x, h_0, c_0)
        grads = {name: np.zeros(array.shape) for name, array in p.items()}
        if inputs:
            grads["x"] = np.zeros((len(x), self.words))
        dh_later, dc = np.zeros((H, 1)), np.zeros((H, 1))
        for t in reversed(range(len(y))):
            dy = s["y"][t].copy()
            dy[y[t]] -= 1
            grads["W_y"] += dy @ s["h"][t].T
            grads["b_y"] += dy
            h, c = s["h"][t - 1], s["c"][t - 1]
            dh = p["W_y"].T @ dy + dh_later
            tanh_c = np.tanh(s["c"][t])
            dc = dc + dh * s["o"][t] * (1 - tanh_c**2)
            da = {
                "i": dc * s["a"][t] * s["i"][t] * (1 - s["i"][t]),
                "f": dc * c * s["f"][t] * (1 - s["f"][t]),
                "a": dc * s["i"][t] * (1 - s["a"][t] ** 2),
                "o": dh * tanh_c * s["o"][t] * (1 - s["o"][t]),
            }
            for gate in GATES:
                grads[f"R_{gate}"] += da[gate] * h if "outer" in faults else da[gate] @ h.T
                if "column" in faults:
                    grads[f"W_{gate}"] += da[gate] * x[t]
                else:
                    grads[f"W_{gate}"][:, x[t]] += da[gate][:, 0]
                grads[f"b_{gate}"] += da[gate]
            if inputs:
                grads["x"][t] = sum(p[f"W_{gate}"].T @ da[gate][:, 0] for gate in GATES)
            if "hidden" not in faults:
                dh_later = sum(p[f"R_{gate}"].T @ da[gate] for gate in GATES)
            if "cell" not in faults:
                dc = dc * s["f"][t]
        return grads | {"h_0": dh_later[:, 0], "c_0": dc[:, 0]}

    def step(self, x, y, learning_rate):
        """One step of gradient descent on one sentence."""
        grads = self.gradients(x, y)
        for name, array in self.params.items():
            array -= learning_rate * grads[name]

    def mean_loss(self, sentences):
        """A word's loss over all sentences, each (x, y)."""
        return sum(self.loss(x, y) for x, y in sentences) / sum(len(y) for _, y in sentences)

    def train(self, sentences, epochs, learning_rate=0.005):
        """Yield the mean loss before the first epoch and after each one; the rate halves when an epoch's is above the last's."""
        yield self.mean_loss(sentences)
        last = np.inf
        for _ in range(epochs):
            for x, y in sentences:
                self.step(x, y, learning_rate)
            loss = self.mean_loss(sentences)
            yield loss
            if loss > last:
                learning_rate /= 2
            last = loss


def words_per_second(words=8000, hidden_size=100, sentences=50, seq_len=20):
    """How many words a second training learns from, over so many random sentences of seq_len words, the evaluation left out."""
    rng, model = np.random.default_rng(0), OriginalWords(words, hidden_size, faults=ORIGINAL)
    numbers = rng.integers(2, words, size=(sentences + 2, seq_len + 1))
    for k, sentence in enumerate(numbers):
        if k == 2:  # the first ones are to wake the machine
            start = time.perf_counter()
        model.step(sentence[:-1], sentence[1:], 0.005)
    return sentences * seq_len / (time.perf_counter() - start)


if __name__ == "__main__":
    print(f"{words_per_second():,.0f} words/s")
