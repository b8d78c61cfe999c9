"""Words: files of text and their faults, sentences, the dictionary, the corpus, and what a trained model makes up."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rnnbench.tasks import text, words
from rnnbench.tasks.batches import DataError
from rnnbench.tasks.optimisers import SGD, Adam
from rnnbench.tasks.text import MARKS, Dictionary
from rnnbench.tasks.training import Training


def test_sentences_and_tokens() -> None:
    found = text.sentences("It's 3.5 o'clock, Ann.  Who knows?\n\nNo end\nhere")
    assert found == [
        ["it's", "3", ".", "5", "o'clock", ",", "ann", "."], ["who", "knows", "?"], ["no", "end", "here"]
    ]  # fmt: skip
    assert text.sentences("one two three four five", longest=2) == [["one", "two"], ["three", "four"], ["five"]]
    assert text.sentences("Grüße an Ζεύς!") == [["grüße", "an", "ζεύς", "!"]]
    with pytest.raises(DataError, match="there is no word in the text, which starts with '\\.\\.\\. !\\?'"):
        text.sentences(" ... !?")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; a text with some sentences is needed"),
        (b" \n\t\n", "is empty"),
        (b"\x7fELF\x02\x01\x01\x00abc", "is binary: byte 7 is zero; a text file is needed"),
        ("Grüße".encode("latin-1"), "is not UTF-8 text: byte 0xfc at 2; convert it, as with iconv -t utf-8"),
    ],
)
def test_files_that_are_no_text(content: bytes, message: str, tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        text.read_text(path)
    assert str(path) in str(caught.value)


def test_a_byte_order_mark_is_no_word(tmp_path: Path) -> None:
    (tmp_path / "text.txt").write_bytes(b"\xef\xbb\xbfOne two.")
    assert text.sentences(text.read_text(tmp_path / "text.txt")) == [["one", "two", "."]]


def test_a_column_of_a_csv_file(tmp_path: Path) -> None:
    path = tmp_path / "comments.csv"
    path.write_text('author,body\nann,"One, two.\n\nThree"\nbob,Four\n,\ncarol\n')
    found = text.sentences(text.read_column(path, "body"))
    assert found == [["one", ",", "two", "."], ["three"], ["four"]]
    with pytest.raises(DataError, match=r"has no column 'text'; it has 'author', 'body'"):
        text.read_column(path, "text")
    path.write_text("author,body\nann,\n")
    with pytest.raises(DataError, match="the column 'body' of .* is empty"):
        text.read_column(path, "body")
    path.write_text('author,body\nann,"never closed\n')
    with pytest.raises(DataError, match="is not valid CSV"):
        text.read_column(path, "body")
    path.write_text("body\n" + "word " * 40_000 + "\nanother\n")  # beyond the csv module's own limit, which stays
    assert text.read_column(path, "body").count("word") == 40_000 and csv.field_size_limit() == 131_072


def test_the_default_text_is_there() -> None:
    found = text.sentences(text.default_text())
    assert len(found) > 3000 and sum(map(len, found)) > 60_000


def test_the_dictionary_has_the_most_frequent_words() -> None:
    dictionary = Dictionary.of([["b", "a", "c", "c"], ["b", "d", "c"]], 6)
    assert dictionary.words == (*MARKS, "c", "b", "a")  # a before d, which is as frequent
    np.testing.assert_array_equal(dictionary.encode(["a", "d", "b"]), [0, 5, 2, 4, 1])
    assert dictionary.decode([0, 5, 2, 4, 1]) == "a <unknown> b"
    assert len(Dictionary.of([["a"]], 100)) == 4
    punctuated = Dictionary([",", "(", ")", "f", "."])
    assert punctuated.decode(punctuated.encode(["f", "(", "f", ")", ",", "f", "."])) == "f (f), f."
    with pytest.raises(ValueError, match="each word once"):
        Dictionary(["a", "a"])


def little_text(count: int = 200) -> list[list[str]]:
    """Sentences of a grammar so small that a model learns it: a subject, a verb that goes with it, an object, a stop."""
    rng = np.random.default_rng(0)
    verbs = {"cat": "eats", "dogs": "eat"}
    return [
        [subject, verbs[subject], str(rng.choice(["fish", "meat", "bread"])), "."]
        for subject in rng.choice(list(verbs), count)
    ]


def test_the_corpus() -> None:
    corpus = words.Corpus(little_text(), batch_size=16)
    assert len(corpus.dictionary) == 3 + 8 and corpus.tokens == 180 * 5 and corpus.unknown_share() == 0
    batches = corpus.batches(0)
    assert sum(batch.x.shape[1] for batch in batches) == 180 and len(batches) == 12
    batch = batches[0]
    assert (batch.x[0] == corpus.dictionary.start).all() and (batch.lengths == 5).all()
    np.testing.assert_array_equal(batch.x[1:], batch.targets[:-1])
    assert (batch.targets[-1] == corpus.dictionary.end).all()
    assert sum(b.x.shape[1] for b in corpus.held_out()) == 20
    one, other = words.Corpus(little_text(), seed=1), words.Corpus(little_text(), seed=2)
    assert one.digest != other.digest and one.digest == words.Corpus(little_text(), seed=1).digest
    singles = words.Corpus(little_text(), batch_size=1).batches(0)
    assert len(singles) == 180 and singles[0].x.shape == (5, 1)


def test_the_dictionary_is_made_of_what_is_learnt_from() -> None:
    sentences = [["common", f"word{k}"] for k in range(40)]
    corpus = words.Corpus(sentences, held_out=0.25)
    assert len(corpus.dictionary) == 3 + 1 + 30
    assert corpus.unknown_share() == pytest.approx(1 / 3)  # of a sentence's two words and its end


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"size": 12, "exact": True},
            "a dictionary of 12 is larger than the corpus, which has 8 .* with the marks, 11",
        ),
        ({"held_out": 0.001}, "a text of 200 sentences is too short to hold 0.1% of it out; 501 are enough"),
        ({"held_out": 0.0}, "held_out must lie between 0 and 1, both excluded, not 0.0"),
    ],
)
def test_what_cannot_be_learnt_from(options: dict[str, Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        words.Corpus(little_text(), **options)
    assert len(words.Corpus(little_text(), size=11, exact=True).dictionary) == 11
    with pytest.raises(DataError, match="a text of 1 sentence is too short"):
        words.Corpus([["one"]])


@pytest.mark.parametrize("original", [False, True], ids=["adam, batches", "SGD, one sentence a step"])
def test_a_small_grammar_is_learnt_and_spoken(original: bool) -> None:
    corpus = words.Corpus(little_text(), batch_size=1 if original else 16)
    per = "row" if original else "prediction"
    model = words.language_model(len(corpus.dictionary), hidden_size=16, backend="numpy", per=per)
    run = Training(model, corpus, SGD(0.1, halve=True) if original else Adam(0.02), clip=None if original else 1.0)
    run.run(8 if original else 15)
    # what is left to chance is the subject and the object: (ln 2 + ln 3) / 5 a word
    floor = (np.log(2) + np.log(3)) / 5
    assert floor - 0.05 < run.rows[-1]["held_out_loss"] < floor + 0.05
    spoken = words.sample(model, corpus.dictionary, 40, temperature=0.8)
    grammatical = {f"{s} {o}." for s in ("cat eats", "dogs eat") for o in ("fish", "meat", "bread")}
    assert sum(sentence in grammatical for sentence in spoken) >= 38
    assert words.sample(model, corpus.dictionary, 40, temperature=0.8) == spoken
    assert words.sample(model, corpus.dictionary, 40, temperature=0.8, seed=1) != spoken
    assert len(set(words.sample(model, corpus.dictionary, 20, temperature=1e-3))) == 1
    assert words.sample(model, corpus.dictionary, 0) == []
    assert all(len(s.split()) <= 2 for s in words.sample(model, corpus.dictionary, 5, longest=2))
    with pytest.raises(ValueError, match="temperature must be above 0, not 0"):
        words.sample(model, corpus.dictionary, 1, temperature=0)
    # the coldest there is: the likeliest word each time, whatever the seed
    assert len(set(words.sample(model, corpus.dictionary, 20, temperature=5e-324))) == 1


def test_sampling_ends_with_the_last_sentence() -> None:
    model = words.language_model(6, hidden_size=4, backend="numpy", dtype="float64")
    drawn = words.sample(model, Dictionary(["a", "b", "c"]), 3, longest=10**9, seed=1)
    assert len(drawn) == 3 and max(len(sentence.split()) for sentence in drawn) < 200


def test_samples_follow_the_softmax() -> None:
    """Without any training: the first word's frequencies against the probabilities, marks that are never drawn left out."""
    dictionary = Dictionary(["a", "b", "c"])
    model = words.language_model(6, hidden_size=4, backend="numpy", dtype="float64")
    model.params["output.weight"] *= 3
    logits = model.predict(np.array([[0]]))[0, 0]
    right = np.exp(logits[[1, 3, 4, 5]])
    right /= right.sum()
    drawn = words.sample(model, dictionary, 4000, longest=1)
    counts = np.array([drawn.count(word) for word in ("", "a", "b", "c")])
    assert counts.sum() == 4000
    chi_squared = float(((counts - 4000 * right) ** 2 / (4000 * right)).sum())
    assert chi_squared < 16.3  # 99.9% of a chi-squared with 3 degrees of freedom
