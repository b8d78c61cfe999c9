"""Short texts in two classes, told apart by an LSTM that reads them word by word; its last h feeds the classifier.

python examples/text_classifier.py

Only the order of the words tells the classes apart, so counting words would not work. `rnnbench example text-classifier` learns to
tell which package of Python's standard library a docstring is from.
"""

import random

import numpy as np

from rnnbench.tasks.optimisers import Adam
from rnnbench.tasks.text_classifier import Texts, classifier, unrolled_by_hand
from rnnbench.tasks.training import Training

MIDDLE = ["on this", "as far as I can see on this", "today, if you ask me, on this"]
ENDS = ["cold Monday", "long and rainy afternoon", "train", "old train with open windows"]


def reviews(count, rng):
    """Equally many that end well and badly, made of the same words."""
    for _ in range(count):
        good_last = rng.random() < 0.5
        first, last = ("bad", "good") if good_last else ("good", "bad")
        journey = f"{rng.choice(MIDDLE)} {rng.choice(ENDS)}"
        yield f"It was {first} at first and {last} at last {journey}", "pleased" if good_last else "annoyed"


def main(count=600, epochs=6, backend="numba-cpu"):
    texts, labels = zip(*reviews(count, random.Random(0)), strict=True)
    data = Texts(texts, labels, longest=30)
    model = classifier(len(data.dictionary), len(data.names), hidden_size=32, backend=backend)
    training = Training(model, data, Adam(1e-2))
    training.run(epochs, report=lambda row: print(f"epoch {row['epoch']}: accuracy {row['held_out_accuracy']:.1%}"))

    for text in (
        "It was good at first and bad at last on this train",
        "It was bad at first and good at last on this cold Monday",
    ):
        tokens = data.encode(text)
        logits = model.predict(tokens[:, None])[0]  # (seq_len, batch_size)
        print(f"{text!r}: {data.names[logits.argmax()]}")
    difference = np.abs(logits - unrolled_by_hand(model.params, tokens)).max()
    print(f"the same by hand, with four separate gates: the logits differ by {difference:.1e}")


if __name__ == "__main__":
    main()
