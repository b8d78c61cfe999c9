"""Digits: the default pictures, MNIST's files and their faults, and what the classifier reaches."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

from rnnbench.tasks import digits, idx
from rnnbench.tasks.batches import DataError
from rnnbench.tasks.optimisers import Adam
from rnnbench.tasks.training import Training


def test_the_default_pictures_are_those_of_scikit_learn() -> None:
    train, test = digits.default_data()
    assert train.images.shape == (1438, 8, 8) and test.images.shape == (359, 8, 8)
    images = np.concatenate([train.images, test.images])
    assert images.dtype == np.float32 and images.min() == 0 and images.max() == 1
    counts = np.bincount(np.concatenate([train.labels, test.labels]))
    np.testing.assert_array_equal(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180])
    assert digits.default_data(seed=1)[1].labels.tolist() != test.labels.tolist()
    np.testing.assert_array_equal(digits.default_data()[1].labels, test.labels)


def test_against_scikit_learn_itself() -> None:
    load_digits = pytest.importorskip("sklearn.datasets").load_digits
    order = np.random.default_rng(0).permutation(1797)
    train, test = digits.default_data("float64")
    np.testing.assert_array_equal(load_digits().images[order[359:]], train.images * 16)
    np.testing.assert_array_equal(load_digits().target[order[:359]], test.labels)


def test_batches_are_rows_in_time_and_each_picture_once() -> None:
    train, test = digits.default_data()
    data = digits.Digits(train, test, batch_size=100)
    batches = data.batches(0)
    assert [batch.x.shape for batch in batches[:1]] == [(8, 100, 8)] and len(batches) == 15
    assert sum(len(batch.targets) for batch in batches) == 1438
    first = batches[0]
    picture = next(k for k in range(1438) if np.array_equal(train.images[k], first.x[:, 0]))
    assert train.labels[picture] == first.targets[0]
    np.testing.assert_array_equal(data.batches(0)[3].targets, batches[3].targets)
    assert (data.batches(1)[3].targets != batches[3].targets).any()
    assert sum(len(batch.targets) for batch in data.held_out()) == 359


@pytest.mark.full
@pytest.mark.parametrize("cell", ["lstm", "gru", "rnn_tanh"])
def test_97_per_cent_of_a_held_out_fifth(cell: str) -> None:
    train, test = digits.default_data()
    run = Training(digits.classifier(8, cell), digits.Digits(train, test), Adam(1e-3), clip=1.0)
    run.run(60)
    assert run.rows[-1]["held_out_accuracy"] >= 0.97


def write_idx(path: Path, array: np.ndarray, magic: int) -> Path:
    content = magic.to_bytes(4, "big") + b"".join(n.to_bytes(4, "big") for n in array.shape) + array.tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def write_part(folder: Path, part: str, count: int, end: str = "", seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (count, 28, 28)).astype(np.uint8)
    labels = rng.integers(0, 10, count).astype(np.uint8)
    write_idx(folder / f"{part}-images-idx3-ubyte{end}", images, idx.IMAGES)
    write_idx(folder / f"{part}-labels-idx1-ubyte{end}", labels, idx.LABELS)
    return images, labels


@pytest.mark.parametrize("end", ["", ".gz"])
def test_mnists_files_are_read(end: str, tmp_path: Path) -> None:
    images, labels = write_part(tmp_path, "train", 20, end)
    train, test = digits.mnist(tmp_path)  # without a test part a fifth is held out
    assert len(train.labels) == 16 and len(test.labels) == 4
    write_part(tmp_path, "t10k", 5, end, seed=1)
    train, test = digits.mnist(tmp_path)
    np.testing.assert_array_equal(np.round(train.images * 255).astype(np.uint8), images)
    np.testing.assert_array_equal(train.labels, labels)
    assert test.images.shape == (5, 28, 28) and train.images.dtype == np.float32


def good(folder: Path, end: str = "") -> tuple[Path, Path]:
    write_part(folder, "train", 20, end)
    return folder / f"train-images-idx3-ubyte{end}", folder / f"train-labels-idx1-ubyte{end}"


def replace(path: Path, start: int, new: bytes) -> None:
    content = bytearray(path.read_bytes())
    content[start : start + len(new)] = new
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda i, l: i.write_bytes(i.read_bytes()[:-1]),
            r"is truncated: 15695 bytes, where its header \(20, 28, 28\)",
        ),
        (lambda i, l: i.write_bytes(i.read_bytes() + b"x"), "goes on after its end: 15697 bytes"),
        (lambda i, l: i.write_bytes(i.read_bytes()[:9]), "has 9 bytes, fewer than the 16 of its header"),
        (lambda i, l: i.write_bytes(b""), "has 0 bytes, fewer than the 16"),
        (
            lambda i, l: i.write_bytes(l.read_bytes()),
            r"starts with 0x00000801, as labels do; images \(0x00000803\) were",
        ),
        (
            lambda i, l: l.write_bytes(i.read_bytes()),
            r"starts with 0x00000803, as images do; labels \(0x00000801\) were",
        ),
        (
            lambda i, l: i.write_bytes(b"\x89PNG" + bytes(90)),
            "starts with 0x89504e47, which is not an idx file of bytes",
        ),
        (lambda i, l: replace(i, 4, b"\0\0\0\x13"), "goes on after its end"),
        (lambda i, l: replace(i, 4, b"\xff\xff\xff\xff"), "is truncated"),
        (lambda i, l: replace(l, 10, b"\x0b"), "has the label 11 at place 2; digits go from 0 to 9"),
        (lambda i, l: write_idx(l, np.zeros(19, np.uint8), idx.LABELS), "has 20 images and .* 19 labels"),
        (lambda i, l: write_idx(i, np.zeros((0, 28, 28), np.uint8), idx.IMAGES), "holds nothing"),
        (lambda i, l: l.unlink(), "has train-images-idx3-ubyte but no train-labels-idx1-ubyte"),
        (lambda i, l: i.unlink(), "has train-labels-idx1-ubyte but no train-images-idx3-ubyte"),
        (lambda i, l: [p.unlink() for p in (i, l)], "has no train-images-idx3-ubyte and train-labels-idx1-ubyte"),
    ],
)
def test_each_fault_of_a_file_is_told_in_a_sentence(damage, message: str, tmp_path: Path) -> None:
    damage(*good(tmp_path))
    with pytest.raises(DataError, match=message) as caught:
        digits.mnist(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@pytest.mark.parametrize("cut", [3, 30, -9, -4])
def test_a_truncated_gzip_file_is_told(cut: int, tmp_path: Path) -> None:
    images, _ = good(tmp_path, ".gz")
    images.write_bytes(images.read_bytes()[:cut])
    with pytest.raises(DataError, match="is a damaged or truncated gzip file: .*; fetch it again"):
        digits.mnist(tmp_path)


def test_a_damaged_gzip_file_is_told(tmp_path: Path) -> None:
    images, _ = good(tmp_path, ".gz")
    replace(images, 200, b"\xff\x00\xff\x00")
    with pytest.raises(DataError, match="damaged|truncated"):
        digits.mnist(tmp_path)


def test_parts_that_differ_and_folders_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not a folder"):
        digits.mnist(tmp_path / "nowhere")
    good(tmp_path)
    write_idx(tmp_path / "t10k-images-idx3-ubyte", np.zeros((2, 8, 8), np.uint8), idx.IMAGES)
    write_idx(tmp_path / "t10k-labels-idx1-ubyte", np.zeros(2, np.uint8), idx.LABELS)
    with pytest.raises(DataError, match=r"are \(28, 28\) and those held out \(8, 8\)"):
        digits.Digits(*digits.mnist(tmp_path))
    nothing = digits.Pictures(np.zeros((0, 8, 8)), np.zeros(0, int))
    with pytest.raises(DataError, match="359 pictures to learn from and 0 held out"):
        digits.Digits(digits.default_data()[1], nothing)
