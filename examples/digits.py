"""Pictures of digits read row by row: the last hidden state of an LSTM says which digit it was.

python examples/digits.py

`rnnbench train digits` is the same program as a command, with MNIST from files, other cells, checkpoints and curves.
"""

import numpy as np

from rnnbench.tasks.digits import Digits, classifier, default_data
from rnnbench.tasks.optimisers import Adam
from rnnbench.tasks.training import Training


def show(row):
    if row["kind"] == "step":
        print(f"step {row['step']:4}: loss {row['loss']:.3f}, accuracy {row['accuracy']:.1%}")
    else:
        print(f"epoch {row['epoch']:3}: held out: accuracy {row['held_out_accuracy']:.1%}")


def main(epochs=20, cell="lstm", backend="numba-cpu"):
    train, test = default_data()  # 1,797 pictures of 8 rows of 8, a fifth of them held out
    columns = train.images.shape[2]
    model = classifier(columns, cell, hidden_size=128, backend=backend)
    training = Training(model, Digits(train, test, batch_size=128), Adam(3e-3), clip=1.0, every=20)
    training.run(epochs, report=show)

    answers = model.predict(test.images.swapaxes(0, 1)).argmax(axis=1)  # time-major: rows, pictures, columns
    wrong = np.flatnonzero(answers != test.labels)
    print(f"{len(wrong)} of {len(answers)} held-out pictures are misread")
    for k in wrong[:1]:
        print(f"this {test.labels[k]} as {answers[k]}:")
        for row in test.images[k]:
            print("".join(" .:*#"[int(4 * grey)] * 2 for grey in row))


if __name__ == "__main__":
    main()
