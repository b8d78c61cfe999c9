"""Sources with exact floors: their floors are what brute force and plain sampling say."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from rnnbench.tasks.sources import (
    ADDING_FLOOR,
    BLANK,
    DELIMITER,
    Markov,
    adding,
    copy_memory,
    copy_memory_floor,
)


def two_coins(heads_after_heads: float, heads_after_tails: float) -> Markov:
    source = Markov(2, order=1)
    source.transition = np.array(
        [[1 - heads_after_tails, heads_after_tails], [1 - heads_after_heads, heads_after_heads]]
    )
    return source


def entropy(p: float) -> float:
    return -p * np.log(p) - (1 - p) * np.log(1 - p)


def test_the_entropy_rate_of_two_coins_is_the_one_worked_out_on_paper() -> None:
    """Heads after heads 0.9, after tails 0.4: heads 0.8 of the time."""
    source = two_coins(0.9, 0.4)
    np.testing.assert_allclose(source.stationary(), [0.2, 0.8], atol=1e-12)
    assert source.entropy_rate() == pytest.approx(0.8 * entropy(0.9) + 0.2 * entropy(0.4), abs=1e-12)
    assert source.entropy_rate(seen=0) == pytest.approx(entropy(0.8), abs=1e-12)


def test_a_fair_coin_has_one_bit() -> None:
    assert two_coins(0.5, 0.5).entropy_rate() == pytest.approx(np.log(2), abs=1e-12)


def test_the_stationary_law_stays_where_it_is() -> None:
    source = Markov(3, order=2, seed=5)
    law, chain = source.stationary(), np.zeros((9, 9))
    for (a, b), c in itertools.product(itertools.product(range(3), repeat=2), range(3)):
        chain[3 * a + b, 3 * b + c] += source.transition[3 * a + b, c]
    np.testing.assert_allclose(law @ chain, law, atol=1e-12)
    assert law.min() > 0 and law.sum() == pytest.approx(1)


def test_more_memory_never_predicts_worse() -> None:
    source = Markov(4, order=2, seed=0)
    rates = [source.entropy_rate(seen) for seen in (0, 1, 2)]
    assert np.log(4) > rates[0] > rates[1] > rates[2] == source.entropy_rate()


def test_a_long_sample_has_the_entropy_rate() -> None:
    """The mean of -ln p(next | context) over a sample is within four standard errors of the entropy rate, and that of -ln p under
    another source's distributions is far above.
    """
    source, other = Markov(4, order=2, seed=0), Markov(4, order=2, seed=1)
    symbols = source.sample(5000, 20, seed=7)
    context = 4 * symbols[:-2] + symbols[1:-1]
    surprise = -np.log(source.transition[context, symbols[2:]])
    assert abs(surprise.mean() - source.entropy_rate()) < 4 * surprise.std() / np.sqrt(surprise.size)
    assert -np.log(other.transition[context, symbols[2:]]).mean() > source.entropy_rate() + 0.5


def test_seeds() -> None:
    source = Markov()
    assert np.array_equal(source.sample(50, 3, seed=1), Markov().sample(50, 3, seed=1))
    assert not np.array_equal(source.sample(50, 3, seed=1), source.sample(50, 3, seed=2))
    assert not np.array_equal(source.transition, Markov(seed=1).transition)


def test_the_best_constant_answer_to_the_adding_problem() -> None:
    x, answers = adding(20, 100_000, seed=0)
    assert x.shape == (20, 100_000, 2) and answers.shape == (100_000, 1) and x.dtype == np.float32
    np.testing.assert_array_equal(x[:10, :, 1].sum(0), 1)
    np.testing.assert_array_equal(x[10:, :, 1].sum(0), 1)
    np.testing.assert_allclose(answers[:, 0], (x[..., 0] * x[..., 1]).sum(0), atol=1e-6)
    assert np.square(answers - 1).mean() == pytest.approx(ADDING_FLOOR, rel=0.02)
    assert np.square(answers - 0.9).mean() > np.square(answers - 1).mean() < np.square(answers - 1.1).mean()


def test_copy_memory_is_as_defined() -> None:
    symbols, answers = copy_memory(5, 300, seed=0)
    assert symbols.shape == answers.shape == (25, 300)
    assert set(np.unique(symbols[:10])) == set(range(8))
    np.testing.assert_array_equal(symbols[10:], np.repeat([[8], [9], [8]], [4, 1, 10], axis=0).repeat(300, axis=1))
    np.testing.assert_array_equal(answers[15:], symbols[:10])
    np.testing.assert_array_equal(answers[:15], BLANK)
    assert (symbols == DELIMITER).sum() == 300


def test_the_floor_of_copy_memory_is_the_loss_of_guessing() -> None:
    _, answers = copy_memory(30, 50, seed=0)
    guess = np.full((50, 50, 10), 1e-300)
    guess[:40, :, BLANK] = 1
    guess[40:, :, :8] = 1 / 8
    loss = -np.log(np.take_along_axis(guess, answers[..., None], axis=2)).mean()
    assert loss == pytest.approx(copy_memory_floor(30), rel=1e-12)


@pytest.mark.parametrize(
    ("call", "sentence"),
    [
        (lambda: Markov(1), "at least 2 symbols, order 1 and a concentration above 0, not 1, 2, 0.3"),
        (lambda: Markov(order=0), "not 4, 0, 0.3"),
        (lambda: Markov(concentration=float("nan")), "not 4, 2, nan"),
        (lambda: Markov().entropy_rate(3), "between 0 and the order 2, not 3"),
        (lambda: adding(1, 2, 0), "seq_len must be at least 2, not 1"),
        (lambda: copy_memory(0, 2, 0), "at least 1, not 0"),
    ],
)
def test_what_cannot_be_is_refused(call, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        call()
