"""Which operations of the disk fail, for how long each is let alone, and what is told of it."""

import errno

from ingestor.publisher.disk_health import GIVE_UP_AFTER_S, HUNG_AFTER_S, RETRY_AFTER_S, DiskHealth

FULL = OSError(errno.ENOSPC, "No space left on device")
BROKEN = OSError(errno.EIO, "Input/output error")


def test_an_operation_that_fails_is_let_alone_for_a_while_and_no_other_one() -> None:
    """The disk takes nothing: reading it back does not wait for that."""
    health = DiskHealth()
    health.failed("write", FULL, 10.0)
    assert not health.may("write", 10.0 + RETRY_AFTER_S / 2)
    assert health.may("read", 10.0)
    assert health.may("write", 10.0 + RETRY_AFTER_S)


def test_what_has_failed_for_the_longest_is_told_until_all_is_well() -> None:
    """And only the last success says so."""
    health = DiskHealth()
    assert health.failed("write", FULL, 1.0) == "OSError: [Errno 28] No space left on device"
    health.failed("read", BROKEN, 2.0)
    health.failed("write", FULL, 3.0)
    assert "No space" in (health.problem or "")
    assert not health.went_well("write")
    assert "Input/output" in (health.problem or "")
    assert not health.went_well("sync")
    assert health.went_well("read")
    assert health.problem is None
    assert not health.went_well("read")


def test_new_room_is_a_reason_to_try_at_once() -> None:
    """Only what needed it, or all before the end."""
    health = DiskHealth()
    health.failed("write", FULL, 1.0)
    health.failed("read", BROKEN, 1.0)
    health.hurry("write")
    assert (health.may("write", 1.0), health.may("read", 1.0)) == (True, False)
    health.hurry()
    assert health.may("read", 1.0)


def test_quotes_go_around_a_disk_that_hangs_when_nothing_on_it_comes_before_them() -> None:
    """As soon as that is known; with something unread only much later, and not before Redis takes it."""
    health = DiskHealth()
    assert not health.look(HUNG_AFTER_S)
    assert not health.must_go_around(HUNG_AFTER_S, 100.0, has_unread=False, redis_takes=True)
    assert health.look(HUNG_AFTER_S + 0.1)
    assert "has not answered" in (health.problem or "")
    assert not health.look(HUNG_AFTER_S + 0.2)
    assert health.must_go_around(HUNG_AFTER_S + 0.2, 100.0, has_unread=False, redis_takes=False)
    assert not health.must_go_around(HUNG_AFTER_S + 0.2, 100.0, has_unread=True, redis_takes=True)
    late_s = GIVE_UP_AFTER_S + 0.1
    assert not health.must_go_around(late_s, 100.0, has_unread=True, redis_takes=False)
    assert health.must_go_around(late_s, 100.0, has_unread=True, redis_takes=True)
    assert health.look(0.0)
    assert health.problem is None


def test_a_disk_that_gives_nothing_back_is_waited_for_no_longer_than_one_that_hangs() -> None:
    """It answers at once, and always with an error: counted from the first failure, whatever writing does."""
    health = DiskHealth()
    health.failed("write", FULL, 0.0)
    assert not health.must_go_around(0.0, 99.0, has_unread=True, redis_takes=True)
    health.failed("read", BROKEN, 100.0)
    health.failed("read", BROKEN, 105.0)
    assert not health.must_go_around(0.0, 100.0 + GIVE_UP_AFTER_S, has_unread=True, redis_takes=True)
    assert health.must_go_around(0.0, 100.1 + GIVE_UP_AFTER_S, has_unread=True, redis_takes=True)
    assert not health.must_go_around(0.0, 199.0, has_unread=False, redis_takes=True)
