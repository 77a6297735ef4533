"""Which operations of the disk fail, for how long each is let alone, and what is told of it."""

import errno

from ingestor.publisher.disk_health import RETRY_AFTER_S, DiskHealth

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
