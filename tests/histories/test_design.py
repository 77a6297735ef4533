"""The design of the histories: every pair of kinds meets, and the same seed gives the same."""

from collections import defaultdict

import pytest

from tests.histories.deeds import DEEDS
from tests.histories.design import CALM_S, KINDS, coverage, histories

COUNT = 300
LEAST = 20


@pytest.mark.parametrize("seed", [1, 2, 20261130])
def test_in_three_hundred_histories_each_pair_of_kinds_meets_twenty_times(seed: int) -> None:
    """Whatever the seed."""
    met = coverage(histories(seed, COUNT))
    assert len(met) == len(KINDS) * (len(KINDS) - 1) // 2
    assert min(met.values()) >= LEAST, met.most_common()[-3:]


def test_a_history_is_the_same_however_many_are_asked_for() -> None:
    """So that its seed and number repeat it."""
    assert histories(7, 40)[11] == histories(7, 12)[-1]
    assert histories(7, 1) != histories(8, 1)


def test_faults_of_one_lane_follow_each_other_and_all_end_in_time() -> None:
    """Those of different lanes overlap."""
    overlaps = 0
    for history in histories(3, 100):
        ends_s: dict[str, float] = defaultdict(float)
        for blow in history.blows:
            lane = KINDS[blow.kind].lane
            assert blow.at_s >= CALM_S
            assert ends_s[lane] <= blow.at_s + 1e-9
            overlaps += any(end_s > blow.at_s for other, end_s in ends_s.items() if other != lane)
            ends_s[lane] = blow.at_s + blow.lasts_s
            assert ends_s[lane] <= history.length_s
    assert overlaps > 200


def test_a_history_has_what_its_kinds_say() -> None:
    """Each kind once; a small disk is a size and no moment; only a disk may stay bad."""
    designed = histories(5, COUNT)
    for history in designed:
        struck = {blow.kind for blow in history.blows}
        assert struck | ({"disk_small"} if history.disk_bytes else set()) == set(history.kinds)
        assert all(KINDS[blow.kind].may_stay for blow in history.blows if blow.stays)
        assert not history.ends_on_a_bad_disk or any(blow.stays for blow in history.blows)
    assert sum(history.ends_on_a_bad_disk for history in designed) > 20


def test_every_kind_can_be_brought_about() -> None:
    """The design names nothing that nobody does, and nothing is done that it never names."""
    assert set(DEEDS) | {"disk_small"} == set(KINDS)
