"""A language model of words, trained on Python's own documentation, and some sentences that it makes up.

python examples/words.py [FILE]

`rnnbench train words` is the same program as a command, with CSV files, other optimisers, checkpoints and curves.
"""

import sys

from rnnbench.tasks.optimisers import Adam
from rnnbench.tasks.text import default_text, read_text, sentences
from rnnbench.tasks.training import Training
from rnnbench.tasks.words import Corpus, language_model, sample


def show(row):
    print(
        f"epoch {row['epoch']}: perplexity {row['perplexity']:.1f}, held out {row['held_out_perplexity']:.1f}, "
        f"{row['items_per_second']:,.0f} words/s"
    )


def main(path=None, epochs=5, words=4000, hidden_size=100, backend="numba-cpu", limit=None):
    text = read_text(path) if path else default_text()
    corpus = Corpus(sentences(text[:limit], longest=50), size=words)
    size = len(corpus.dictionary)
    print(f"{corpus.tokens:,} words to learn from; {size} in the dictionary, so guessing has a perplexity of {size}")

    model = language_model(size, "lstm", hidden_size, backend=backend)
    training = Training(model, corpus, Adam(3e-3), clip=1.0, patience=2)
    training.run(epochs, report=show)

    for sentence in sample(model, corpus.dictionary, count=5, temperature=0.7):
        print(f"- {sentence}")


if __name__ == "__main__":
    main(*sys.argv[1:2])
