"""Addresses of websockets and REST calls: what can never work is told at once."""

import pytest

from wire.web_url import BadWebUrl, check_rest_url, check_websocket_url

NOWHERE = [
    ("127.0.0.1:99999/x", "has a port that is not between 1 and 65535"),
    ("h:0/x", "has a port that is not between 1 and 65535"),
    ("h:-1", "has a port that is not between 1 and 65535"),
    ("h:http", "has a port that is not between 1 and 65535"),
    ("h:٦٤", "has a port that is not between 1 and 65535"),
    ("[::1/x", "has a host that is none"),
    ("[bad", "has a host that is none"),
    ("bad]", "has a host that is none"),
    ("[bad]:1", "has "),
    ("::1", "has no host, or one that is none"),
    ("", "has no host, or one that is none"),
    ("/x", "has no host, or one that is none"),
    (":80/x", "has no host, or one that is none"),
    ("a..b/x", "has no host, or one that is none"),
    ("a" * 64, "has no host, or one that is none"),
    ("999.1.1.1", "has no host, or one that is none"),
    ("h%20h", "has no host, or one that is none"),
    ("h/x#y", "has a # in it"),
    ("h/x#", "has a # in it"),
    ("h h/x", "has a blank or a line end in it"),
    ("h/x\n", "has a blank or a line end in it"),
    ("h/\u2003x", "has a blank or a line end in it"),
]


@pytest.mark.parametrize(("rest", "says"), NOWHERE)
def test_an_address_that_cannot_work_is_refused_with_the_form_that_does(rest: str, says: str) -> None:
    """For the websocket and for REST, with and without TLS."""
    for scheme in ("ws", "wss"):
        with pytest.raises(BadWebUrl, match=r"; write wss://HOST\[:PORT\]/PATH$") as caught:
            check_websocket_url(f"{scheme}://{rest}")
        assert str(caught.value).startswith(says)
    for scheme in ("http", "https"):
        with pytest.raises(BadWebUrl, match=r"; write https://HOST\[:PORT\]$") as caught:
            check_rest_url(f"{scheme}://{rest}")
        assert str(caught.value).startswith(says)


@pytest.mark.parametrize(
    "rest", ["h", "h:1", "h:/v2", "a-b.c_d.", "127.0.0.1:65535", "[::1]:80/v2", "hö.de", "[fe80::1%25eth0]"]
)
def test_an_address_that_can_work_is_taken(rest: str) -> None:
    """Whether or not anybody listens there."""
    check_websocket_url(f"ws://{rest}")
    check_rest_url(f"https://{rest}")


def test_a_websocket_may_have_a_query_and_a_user_and_rest_calls_may_not() -> None:
    """The calls of REST have questions of their own, and the key beside them."""
    check_websocket_url("wss://user:word@h/x?feed=sip")
    for url in ("https://user:word@h", "https://h?x=1", "https://h/v2?"):
        with pytest.raises(BadWebUrl):
            check_rest_url(url)
