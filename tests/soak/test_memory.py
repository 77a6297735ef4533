"""How growth is measured: over the last two thirds, by least squares."""

import pytest

from tests.soak.balance import MIB, slope_per_h
from tests.soak.memory import Sample, settled, without_stalls


def sample(at_s: float, rss_bytes: int) -> Sample:
    """A process of this size."""
    return Sample(at_s, rss_bytes, rss_bytes, 0, 0, 0)


def test_a_window_that_fills_at_first_is_no_growth() -> None:
    """Ten megabytes within the first third, and a mebibyte an hour from then on, are a mebibyte an hour."""
    samples = [sample(s, min(s, 900) * 10_000 + s * MIB // 3600) for s in range(0, 2700, 5)]
    late = settled(samples)
    assert late[0].at_s == 900
    assert slope_per_h([(s.at_s, s.rss_bytes) for s in late]) == pytest.approx(MIB, rel=0.001)


def test_a_step_in_a_stall_is_told_apart_from_growth() -> None:
    """Once nothing was appended for 10 s, and the heap took two mebibytes: without that there is no growth."""
    samples, batches = [], 0
    for s in range(0, 2700, 5):
        batches += 10 if s in (1500, 1505) else 300
        samples.append(Sample(s, (90 + 2 * (s > 1505)) * MIB, 0, 0, 0, batches))
    assert slope_per_h([(s.at_s, s.rss_bytes) for s in settled(samples)]) > MIB
    assert slope_per_h(without_stalls(settled(samples))) == pytest.approx(0.0)


def test_steady_growth_is_growth_also_without_stalls() -> None:
    """What comes with every call is not taken for a stall."""
    samples = [Sample(s, 90 * MIB + s * MIB // 3600, 0, 0, 0, 300 * s // 5) for s in range(0, 2700, 5)]
    assert slope_per_h(without_stalls(samples)) == pytest.approx(MIB, rel=0.001)


def test_too_few_samples_have_no_slope() -> None:
    """A run of some seconds is told to be too short, not called flat."""
    with pytest.raises(ValueError, match="measure for longer"):
        slope_per_h([(0.0, 1), (5.0, 1)])
