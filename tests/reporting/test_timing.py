"""Throughput, data-wait share and ETA under a clock that the test moves."""

import math
import time

import pytest

from ddptrain.reporting.timing import Timing, duration


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now

    def batches(self, seconds: float, n: int):  # type: ignore[no-untyped-def]
        for i in range(n):
            self.now += seconds
            yield i


def test_a_window() -> None:
    clock = Clock()
    timing = Timing(100, clock=clock)
    for _ in timing.wait_for(clock.batches(0.25, 10)):
        clock.now += 0.75
        timing.step(16)
    reading = timing.read()
    assert reading.images_per_second == pytest.approx(16)
    assert reading.data_wait == pytest.approx(0.25)
    assert reading.step_seconds == pytest.approx(1.0)
    assert reading.eta_seconds == pytest.approx(90.0)


def test_accumulation_counts_every_wait() -> None:
    clock = Clock()
    timing = Timing(4, clock=clock)
    for i in timing.wait_for(clock.batches(0.1, 8)):
        clock.now += 0.4
        if i % 4 == 3:
            timing.step(64)
    reading = timing.read()
    assert (reading.step_seconds, reading.data_wait) == (pytest.approx(2.0), pytest.approx(0.2))
    assert reading.images_per_second == pytest.approx(32)


def test_pauses_are_not_training_time_but_time_to_the_end() -> None:
    clock = Clock()
    timing = Timing(20, clock=clock)
    for i in timing.wait_for(clock.batches(0.0, 10)):
        clock.now += 1.0
        timing.step(8)
        if i % 5 == 4:
            with timing.pause():
                clock.now += 10.0
    reading = timing.read()
    assert reading.images_per_second == pytest.approx(8)
    assert reading.step_seconds == pytest.approx(1.0)
    assert reading.eta_seconds == pytest.approx(10 * 1.0 + 2 * 10.0)


def test_eta_ignores_a_slow_start_and_a_stall() -> None:
    clock = Clock()
    timing = Timing(1000, step=100, clock=clock)
    for window, seconds in enumerate([30.0, 1.0, 1.0, 1.0, 60.0, 1.0]):
        clock.now += seconds * 10
        for _ in range(10):
            timing.step(1)
        eta = timing.read().eta_seconds
        if window >= 2:
            assert eta == pytest.approx((1000 - 100 - 10 * (window + 1)) * 1.0)


def test_before_the_first_step_nothing_is_known() -> None:
    reading = Timing(10).read()
    assert math.isnan(reading.eta_seconds)
    assert math.isnan(reading.step_seconds)
    assert reading.images_per_second == 0.0


def test_it_costs_next_to_nothing() -> None:
    timing = Timing(20_000)
    start = time.perf_counter()
    for _ in timing.wait_for(range(20_000)):
        timing.step(1)
    assert (time.perf_counter() - start) / 20_000 < 50e-6


def test_batches_pass_through_unchanged() -> None:
    assert list(Timing(1).wait_for("abc")) == ["a", "b", "c"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (59.6, "1:00"), (61, "1:01"), (3600, "1:00:00"), (90061, "1d 01:01:01"), (math.nan, "?"), (math.inf, "?")],
)
def test_duration(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_first_step_does_not_count_for_the_eta_and_a_look_closes_no_window() -> None:
    clock = Clock()
    timing = Timing(11, clock=clock)
    clock.now += 60
    timing.step(4)
    first = timing.first()
    assert (first.step_seconds, math.isnan(first.eta_seconds)) == (60, True)
    for seconds in (1, 3):
        clock.now += seconds
        timing.step(4)
    for _ in range(2):
        look = timing.peek()
        assert (look.step_seconds, look.images_per_second, look.eta_seconds) == (2, 2, 16)
    assert timing.read() == look
