"""A refused password is repeated with patience, another one at once, for all connections together."""

import pytest

from ingestor.login import REFUSED_PAUSE_S, Login
from ingestor.redis_link import LinkFailure, RedisAddress


def test_a_login_that_nobody_refused_is_not_hindered() -> None:
    """Reconnecting has its own pauses."""
    login = Login("daemon", "old")
    assert [login.hinders(now_s) for now_s in (0.0, 0.0, 0.1)] == [None, None, None]


def test_after_a_refusal_one_attempt_is_allowed_in_each_pause() -> None:
    """Three connections ask for it, and one gets it."""
    login = Login("daemon", "old")
    login.refused("old", "WRONGPASS", 10.0)
    assert login.hinders(10.1) == "WRONGPASS"
    due_s = 10.0 + REFUSED_PAUSE_S
    assert [login.hinders(due_s) for _ in range(3)] == [None, "WRONGPASS", "WRONGPASS"]
    login.accepted()
    assert login.hinders(due_s) is None


def test_another_password_is_tried_at_once() -> None:
    """What was refused was the old one, also when its refusal comes late."""
    login = Login("daemon", "old")
    login.refused("old", "WRONGPASS", 10.0)
    login.change("daemon", "old")
    assert login.hinders(10.1) == "WRONGPASS"
    login.change("daemon", "new")
    assert login.hinders(10.1) is None
    login.refused("old", "WRONGPASS", 10.2)
    assert login.hinders(10.2) is None


def test_the_url_is_read_again_after_a_refusal_and_not_before() -> None:
    """A good login costs no look at the file."""
    reads = []

    def read() -> str:
        reads.append(1)
        return "redis://daemon:new@elsewhere:1/0"

    address = RedisAddress("redis://daemon:old@localhost:6379/0", read)
    address.check()
    assert not reads
    address.note_refusal("old", "WRONGPASS")
    address.check()
    assert (len(reads), address.login.password, repr(address)) == (1, "new", "elsewhere:1/0")


def test_a_url_that_cannot_be_read_again_is_the_reason_that_is_shown() -> None:
    """Otherwise the operator would look for the mistake on the server."""

    def read() -> str:
        raise LinkFailure("QUOTEBUS_REDIS_URL_FILE: /run/url cannot be read (FileNotFoundError)")

    address = RedisAddress("redis://daemon:old@localhost:6379/0", read)
    address.note_refusal("old", "WRONGPASS")
    with pytest.raises(LinkFailure, match="URL_FILE"):
        address.check()
