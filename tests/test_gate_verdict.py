"""The gate's statistics on made-up timings: drift, modes, outliers, restarts that differ, and what must not pass."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from rnnbench.bench.gate.verdict import BATCHES, Batch, Judgement, estimate, interval, judge

Noise = Callable[[np.random.Generator, float], float]
RESTARTS, PAIRS = 4, 10


@dataclasses.dataclass
class Machine:
    """A made-up machine with a clock of its own: every sample moves it on, and its speed may depend on it.

    slowdown: of the head. layout: spread of what a restart is worth, for each side by itself. noise: factor of one sample.
    control_slowdown: what the control must see.
    """

    slowdown: float = 0.0
    layout: float = 0.004
    noise: Noise = lambda rng, clock: rng.lognormal(0, 0.01)
    control_slowdown: float = 0.0
    seed: int = 0

    def batches(self) -> Iterator[Batch]:
        rng, clock = np.random.default_rng(self.seed), 0.0
        while True:
            kinds: dict[str, list[list[float]]] = {"kernel": [], "control": []}
            for _ in range(RESTARTS):
                for kind, slowdown in (("kernel", self.slowdown), ("control", self.control_slowdown)):
                    sides = {
                        "base": rng.lognormal(0, self.layout),
                        "head": (1 + slowdown) * rng.lognormal(0, self.layout),
                    }
                    row = []
                    for k in range(PAIRS):
                        there = ("base", "head") if k % 2 else ("head", "base")
                        total = dict.fromkeys(sides, 0.0)
                        for side in (*there, *reversed(there)):
                            seconds = sides[side] * self.noise(rng, clock)
                            clock += seconds
                            total[side] += seconds
                        row.append(total["head"] / total["base"])
                    kinds[kind].append(row)
            yield Batch(np.array(kinds["kernel"]), np.array(kinds["control"]))


def settled(machine: Machine, threshold: float = 0.03) -> Judgement:
    """As the gate goes about it: batch after batch until the verdict is settled."""
    taken: list[Batch] = []
    for batch in machine.batches():
        taken.append(batch)
        judgement = judge(taken, threshold)
        if judgement.settled:
            break
    assert len(taken) <= BATCHES
    return judgement


def first(machine: Machine, count: int) -> list[Batch]:
    return list(itertools.islice(machine.batches(), count))


def rate(verdict: str, machines: list[Machine]) -> float:
    return sum(settled(machine).verdict == verdict for machine in machines) / len(machines)


def machines(count: int, **about: object) -> list[Machine]:
    return [Machine(seed=seed, **about) for seed in range(count)]  # type: ignore[arg-type]


def drifting(rng: np.random.Generator, clock: float) -> float:
    """A machine that gets slower and slower: by half over a batch of pairs."""
    return (1 + clock / 300) * rng.lognormal(0, 0.005)


def two_modes(rng: np.random.Generator, clock: float) -> float:
    """Turbo on or off, at random: a third of all samples takes 20% longer."""
    return rng.lognormal(0, 0.005) * (1.2 if rng.random() < 1 / 3 else 1.0)


def bursts(rng: np.random.Generator, clock: float) -> float:
    """Another program takes the core now and then: one sample of twelve takes several times as long."""
    return rng.lognormal(0, 0.005) * (rng.uniform(2, 8) if rng.random() < 1 / 12 else 1.0)


NOISES = {"steady": Machine.noise, "drift": drifting, "two modes": two_modes, "bursts": bursts}


@pytest.mark.parametrize("noise", NOISES)
def test_nothing_changed_is_never_a_change(noise: str) -> None:
    verdicts = [settled(machine).verdict for machine in machines(40, noise=NOISES[noise])]
    assert not {"slower", "faster"} & set(verdicts)
    if noise != "two modes":  # of which it says, rightly, that nothing can be told
        assert verdicts.count("same") >= 38


@pytest.mark.parametrize("noise", ["steady", "drift"])
def test_five_per_cent_are_seen(noise: str) -> None:
    assert rate("slower", machines(40, noise=NOISES[noise], slowdown=0.05)) >= 0.99
    assert rate("faster", machines(40, noise=NOISES[noise], slowdown=1 / 1.05 - 1)) >= 0.99


@pytest.mark.parametrize("noise", ["two modes", "bursts"])
def test_ten_per_cent_are_seen_through_modes_and_bursts_or_called_unclear(noise: str) -> None:
    found = [settled(machine).verdict for machine in machines(40, noise=NOISES[noise], slowdown=0.1)]
    assert "faster" not in found and "same" not in found
    assert found.count("slower") >= {"two modes": 28, "bursts": 38}[noise]


def test_what_is_below_the_threshold_is_the_same() -> None:
    assert rate("slower", machines(30, slowdown=0.01)) == 0
    assert rate("same", machines(30, slowdown=0.01)) >= 0.98


def test_a_change_as_large_as_the_threshold_is_not_called_the_same() -> None:
    verdicts = [settled(machine).verdict for machine in machines(20, slowdown=0.03, layout=0.008)]
    assert verdicts.count("inconclusive") >= 10 and verdicts.count("same") <= 1 and "faster" not in verdicts


def test_a_drift_that_is_not_paired_away_would_be_a_false_alarm() -> None:
    """The pairs are what holds: base first and head afterwards, on the same drifting machine, looks like a slowdown."""
    rng, clock, times = np.random.default_rng(0), 0.0, []
    for _ in range(4 * RESTARTS * PAIRS):
        times.append(drifting(rng, clock))
        clock += times[-1]
    base, head = np.split(np.array(times).reshape(2 * RESTARTS, -1), 2)
    unpaired = Batch(head / base, np.ones((RESTARTS, PAIRS)))
    assert judge([unpaired, unpaired]).verdict == "slower"
    assert settled(Machine(noise=drifting)).verdict == "same"


def test_the_control_forbids_a_verdict() -> None:
    for slowdown in (0.0, 0.1):
        judgement = settled(Machine(slowdown=slowdown, control_slowdown=0.04))
        assert judgement.verdict == "inconclusive" and "control" in judgement.reason and "+" in judgement.reason
        assert judgement.control == pytest.approx(1.04, abs=0.01)
    assert settled(Machine(control_slowdown=-0.04)).verdict == "inconclusive"
    assert settled(Machine(control_slowdown=0.01)).verdict == "same"


@pytest.mark.parametrize(("control", "verdict"), [(1.019, "same"), (1.021, "inconclusive")])
def test_the_control_may_move_by_two_per_cent_either_way(control: float, verdict: str) -> None:
    for moved in (control, 1 / control):
        even = Batch(np.ones((RESTARTS, PAIRS)), np.full((RESTARTS, PAIRS), moved))
        assert judge([even, even]).verdict == verdict


def test_the_control_of_a_batch_that_was_cut_short_does_not_count() -> None:
    even = Batch(np.ones((RESTARTS, PAIRS)), np.ones((RESTARTS, PAIRS)))
    short = Batch(np.ones((RESTARTS - 1, PAIRS)), np.full((RESTARTS - 1, PAIRS), 1.5))
    judgement = judge([even, short, short, short], restarts=RESTARTS)
    assert (judgement.verdict, judgement.control) == ("same", 1.0)


def test_a_change_in_one_batch_only_did_not_recur() -> None:
    slow, even = next(Machine(slowdown=0.12).batches()), next(Machine(seed=1).batches())
    first = judge([slow])
    assert (first.verdict, first.settled) == ("inconclusive", False)
    assert "was seen once, and another whole batch has to show it again" in first.reason
    cut_short = Batch(even.ratios[:1], even.control[:1])  # shows nothing, either way
    assert "was seen once" in judge([slow, cut_short], restarts=RESTARTS).reason
    many, one = (Batch(np.full((count, 2), ratio), np.ones((count, 2))) for count, ratio in ((60, 1.5), (1, 1.0)))
    assert "was seen and did not recur" in judge([many, one]).reason
    assert judge([slow, even]).verdict != "slower"
    assert judge([slow, even, even, even]).verdict != "slower"
    assert judge([slow, slow]).verdict == "slower"


def test_a_batch_that_the_clock_cut_short_settles_nothing() -> None:
    """Its pairs are alike, as they are of one process, and say little of the next one."""
    even, slow = (next(Machine(slowdown=s).batches()) for s in (0.0, 0.12))
    short = [Batch(batch.ratios[:1], batch.control[:1]) for batch in (even, slow)]
    judgement = judge([short[0]], restarts=4)
    assert (judgement.verdict, judgement.settled) == ("inconclusive", False)
    assert judgement.reason == "only 1 of 4 restarts were timed" and np.isfinite(judgement.ratio).all()
    assert judge([slow, short[1]], restarts=4).verdict == "inconclusive"
    assert judge([even, short[1]], restarts=4).ratio == judge([even]).ratio
    assert judge([slow, slow], restarts=4).verdict == "slower"


def test_pairs_of_one_restart_do_not_count_as_independent() -> None:
    """Restarts that differ by 5% each: many even pairs in each must not make the interval narrow."""
    layouts = np.array([1.04, 0.97, 1.05, 0.96])
    ratios = np.repeat(layouts[:, None], 200, axis=1) * np.random.default_rng(0).lognormal(0, 0.001, (4, 200))
    bounds = interval(list(ratios))
    assert bounds.lower < 0.97 and bounds.upper > 1.04
    judgement = judge([Batch(ratios, np.ones((4, 3)))], most=1)
    assert judgement.verdict == "inconclusive" and "does not show" in judgement.reason


def test_the_interval_covers_the_truth_as_often_as_it_says() -> None:
    missed = 0
    for seed in range(200):
        rng = np.random.default_rng(seed)
        rows = list(rng.lognormal(0, 0.01, (8, 1)) * rng.lognormal(0, 0.01, (8, 10)))
        bounds = interval(rows, resamples=400)
        missed += not bounds.lower <= 1 <= bounds.upper
    assert missed <= 7  # 1% of 200, and what chance adds to it


def test_the_estimate_shrugs_off_a_bad_restart_and_bad_pairs() -> None:
    rows = np.full((5, 9), 1.0)
    rows[0] = 40.0
    rows[1:, :3] = 0.02
    assert estimate(rows) == 1.0


def test_the_same_numbers_always_give_the_same_bounds() -> None:
    batches = first(Machine(), 2)
    assert judge(batches) == judge(batches)


@pytest.mark.parametrize(
    ("ratios", "control", "sentence"),
    [
        (np.ones((0, 3)), np.ones((1, 1)), "at least one"),
        (np.ones(3), np.ones((1, 1)), "restarts x pairs"),
        (np.array([[1.0, np.nan]]), np.ones((1, 1)), "nan, which is not a ratio"),
        (np.ones((1, 1)), np.array([[0.0]]), "control holds 0.0"),
    ],
)
def test_what_is_no_ratio_is_refused(ratios: np.ndarray, control: np.ndarray, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence):
        Batch(ratios, control)


def test_no_batch_and_no_threshold_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one batch"):
        judge([])
    with pytest.raises(ValueError, match="fraction above 0"):
        judge(first(Machine(), 1), threshold=0)
