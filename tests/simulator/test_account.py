"""The vendor's answers, without a socket: every code, whole sets, slots and ghosts."""

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingestor.feed.messages import Encoding, Subscription
from simulator import AccountRules
from simulator import faults as f
from simulator.account import Account, Answer, Session
from simulator.mischief import MAX_RULES, Mischief

CHANNELS = [
    *("trades", "quotes", "bars", "updatedBars", "dailyBars"),
    *("statuses", "lulds", "imbalances", "corrections", "cancelErrors"),
]


def session(
    rules: AccountRules | None = None,
    feed: str = "iex",
    encoding: Encoding = "json",
    *,
    account: Account | None = None,
    number: int = 1,
) -> Session:
    """A session that has just opened."""
    return Session(account or Account(rules or AccountRules()), number, feed, encoding, 0.0)


def say(to: Session, message: Any, now_s: float = 0.0) -> Answer:
    """Let a client say this, in the session's encoding."""
    if to.encoding == "msgpack":
        return to.receive(msgspec.msgpack.encode(message), now_s)
    return to.receive(msgspec.json.encode(message).decode(), now_s)


def login(to: Session, now_s: float = 0.0, key: str = "k", secret: str = "s") -> Answer:
    """Let a client present credentials."""
    return say(to, {"action": "auth", "key": key, "secret": secret}, now_s)


def inside(rules: AccountRules | None = None, feed: str = "iex", encoding: Encoding = "json") -> Session:
    """A session that is logged in."""
    made = session(rules, feed, encoding)
    assert login(made).code is None
    return made


def ack(answer: Answer) -> dict[str, list[str]]:
    """The sets that an acknowledgement lists."""
    assert answer.code is None
    (message,) = answer.messages
    assert isinstance(message, Subscription)
    listed = msgspec.to_builtins(message)
    assert listed.pop("T") == "subscription"
    return dict(listed)


def test_greeting() -> None:
    """The vendor speaks first."""
    (message,) = session().open({}, 0.0).messages
    assert msgspec.to_builtins(message) == {"T": "success", "msg": "connected"}


@pytest.mark.parametrize(
    "headers",
    [
        {"apca-api-key-id": "key", "apca-api-secret-key": "secret"},
        {"authorization": "Basic a2V5OnNlY3JldA=="},
    ],
)
def test_login_by_header(headers: dict[str, str]) -> None:
    """Credentials in the upgrade log in at once, and a second login is 403."""
    made = session(AccountRules(key="key", secret="secret"))
    assert [msgspec.to_builtins(m)["msg"] for m in made.open(headers, 0.0).messages] == [
        "connected",
        "authenticated",
    ]
    assert login(made).code == 403
    assert made.authenticated


@pytest.mark.parametrize("value", ["Basic %%%", "Digest x", "Basic a2V5"])
def test_bad_header(value: str) -> None:
    """Credentials in the upgrade that are none are 402."""
    assert session().open({"authorization": value}, 0.0).code == 402


@pytest.mark.parametrize(("key", "secret"), [("", "s"), ("k", ""), ("wrong", "secret"), ("key", "wrong")])
def test_402(key: str, secret: str) -> None:
    """Empty or wrong credentials are refused."""
    made = session(AccountRules(key="key", secret="secret"))
    assert login(made, key=key, secret=secret).code == 402
    assert not made.authenticated


def test_404() -> None:
    """Silence for ten seconds ends the connection; credentials end the deadline."""
    silent = session()
    assert silent.expire(9.99) is None
    overdue = silent.expire(10.0)
    assert overdue is not None
    assert (overdue.code, overdue.close_code) == (404, 1008)
    spoken = session()
    login(spoken)
    assert spoken.expire(1e9) is None


def test_401() -> None:
    """Nothing is granted before the login."""
    made = session()
    assert say(made, {"action": "subscribe", "quotes": ["AAPL"]}).code == 401
    assert made.quotes == frozenset()


def test_409_and_412() -> None:
    """A feed beyond the plan, and JSON where only msgpack is spoken, are refused at the login."""
    assert login(session(AccountRules(feeds_in_plan=frozenset({"iex"})), "sip")).code == 409
    assert login(session(AccountRules(msgpack_only=True))).code == 412
    assert login(session(AccountRules(msgpack_only=True), encoding="msgpack")).code is None


def test_410() -> None:
    """The test feed has three channels and no more."""
    made = inside(feed="test")
    assert say(made, {"action": "subscribe", "statuses": ["FAKEPACA"]}).code == 410
    assert list(ack(say(made, {"action": "subscribe", "quotes": ["FAKEPACA"]}))) == [
        "trades",
        "quotes",
        "bars",
    ]
    assert made.live == frozenset({"FAKEPACA"})


@pytest.mark.parametrize("code", [406, 409, 411, 412, 500])
def test_refused_logins(code: int) -> None:
    """Any code can be had for a number of logins."""
    made = session()
    account = Account(AccountRules())
    account.mischief.arm(f.RefuseAuth(code), times=2)
    made = session(account=account)
    assert [login(made).code for _ in range(3)] == [code, code, None]


@pytest.mark.parametrize("code", [400, 405, 410, 413, 500])
def test_refused_requests(code: int) -> None:
    """Any code can be had for a number of requests, and they change nothing."""
    account = Account(AccountRules())
    made = session(account=account)
    login(made)
    account.mischief.arm(f.RefuseRequest(code), times=1)
    assert say(made, {"action": "subscribe", "quotes": ["AAPL"]}).code == code
    assert made.quotes == frozenset()
    assert ack(say(made, {"action": "subscribe", "quotes": ["AAPL"]}))["quotes"] == ["AAPL"]


@pytest.mark.parametrize(
    "raw",
    [
        "",
        "nonsense",
        "[]",
        "{}",
        '{"action":"dance"}',
        '{"action":"subscribe"}',
        '{"action":"subscribe","quotes":[]}',
        '{"action":"subscribe","quotes":"AAPL"}',
        '{"action":"subscribe","quotes":[1]}',
        '{"action":"subscribe","quotes":["MSFT","a b"]}',
        '{"action":"subscribe","quotes":["MSFT",""]}',
        '{"action":"unsubscribe","quotes":["aapl"]}',
        '{"action":"subscribe","quotes":["MSFT","EVIL"]}',
        b'{"action":"subscribe","quotes":["MSFT"]}',
        "[" * 100_000,
    ],
)
def test_400(raw: str | bytes) -> None:
    """A malformed message or symbol is refused whole, and the set stays."""
    made = inside(AccountRules(refused_symbols=frozenset({"EVIL"})))
    say(made, {"action": "subscribe", "quotes": ["AAPL"]})
    assert made.receive(raw, 0.0).code == 400
    assert made.quotes == {"AAPL"}


@given(raw=st.binary(max_size=60) | st.text(max_size=60), encoding=st.sampled_from(["json", "msgpack"]))
def test_any_noise_is_answered(raw: bytes | str, encoding: Encoding) -> None:
    """Whatever a client sends, there is an answer."""
    assert inside(encoding=encoding).receive(raw, 0.0).messages


def test_405() -> None:
    """A request beyond the limit is refused whole; trades and quotes count each."""
    made = inside(AccountRules(symbol_limit=3))
    assert ack(say(made, {"action": "subscribe", "quotes": ["A", "B"]}))["quotes"] == ["A", "B"]
    assert say(made, {"action": "subscribe", "quotes": ["B", "C", "D"]}).code == 405
    assert made.quotes == {"A", "B"}
    assert say(made, {"action": "subscribe", "quotes": ["*"]}).code == 405
    assert ack(say(made, {"action": "subscribe", "trades": ["A"]}))["trades"] == ["A"]
    assert say(made, {"action": "subscribe", "quotes": ["C"]}).code == 405
    assert say(made, {"action": "unsubscribe", "quotes": ["B"]}).code is None
    assert say(made, {"action": "subscribe", "quotes": ["C"]}).code is None


def test_wildcard() -> None:
    """The wildcard means everything, or 413 where it is forbidden."""
    made = inside()
    assert ack(say(made, {"action": "subscribe", "quotes": ["*"]}))["quotes"] == ["*"]
    assert made.live is None
    assert say(inside(AccountRules(star_code=413)), {"action": "subscribe", "quotes": ["*"]}).code == 413


@pytest.mark.parametrize("encoding", ["json", "msgpack"])
def test_acknowledgements_are_whole(encoding: Encoding) -> None:
    """Each acknowledgement lists every channel with its whole set, whatever the request named."""
    made = inside(encoding=encoding)
    first = ack(say(made, {"action": "subscribe", "quotes": ["MSFT", "AAPL"], "trades": ["NVDA"]}))
    assert list(first) == CHANNELS
    assert first["quotes"] == ["AAPL", "MSFT"]
    assert first["trades"] == first["corrections"] == first["cancelErrors"] == ["NVDA"]
    second = ack(say(made, {"action": "subscribe", "updatedBars": ["AAPL"], "unknown": 1}))
    assert second == {**first, "updatedBars": ["AAPL"]}
    third = ack(say(made, {"action": "unsubscribe", "quotes": ["MSFT", "NEVER"]}))
    assert third == {**second, "quotes": ["AAPL"]}


requests = st.tuples(
    st.sampled_from(["subscribe", "unsubscribe"]),
    st.lists(st.sampled_from(["A", "B", "C", "D", "E", "bad"]), min_size=1, max_size=4),
)


@given(st.lists(requests, max_size=20))
def test_the_set_is_the_sum_of_what_was_granted(story: list[tuple[str, list[str]]]) -> None:
    """After any story the set is what a plain reading gives, and never beyond the limit."""
    made, expected = inside(AccountRules(symbol_limit=3)), set[str]()
    for action, symbols in story:
        answer = say(made, {"action": action, "quotes": symbols})
        wished = expected | set(symbols) if action == "subscribe" else expected - set(symbols)
        if "bad" in symbols:
            assert answer.code == 400
        elif action == "subscribe" and len(wished) > 3:
            assert answer.code == 405
        else:
            assert ack(answer)["quotes"] == sorted(wished)
            expected = wished
        assert made.quotes == expected


def test_ack_quirks() -> None:
    """Late, missing, partial and excessive acknowledgements, each once, then all is well."""
    account = Account(AccountRules())
    made = session(account=account)
    login(made)
    arm = account.mischief.arm
    arm(f.DelayAck(4.0), 1)
    assert say(made, {"action": "subscribe", "quotes": ["A"]}).delay_s == 4.0
    arm(f.NoAck(), 1)
    assert say(made, {"action": "subscribe", "quotes": ["B"]}).messages == ()
    arm(f.PartialAck(1), 1)
    assert ack(say(made, {"action": "subscribe", "quotes": ["C", "D"]}))["quotes"] == ["A", "B", "C"]
    arm(f.AckExtra("ZZZZ"), 1)
    assert ack(say(made, {"action": "subscribe", "quotes": ["D"]}))["quotes"] == ["A", "B", "C", "D", "ZZZZ"]
    arm(f.IgnoreUnsubscribe(), 1)
    assert "A" in ack(say(made, {"action": "unsubscribe", "quotes": ["A"]}))["quotes"]
    arm(f.NoAck("unsubscribe"), 1)
    assert say(made, {"action": "unsubscribe", "quotes": ["ZZZZ"]}).messages == ()
    assert ack(say(made, {"action": "unsubscribe", "quotes": ["A"]}))["quotes"] == ["B", "C", "D"]


def test_rules_last_from_their_first_use() -> None:
    """A rule with a span waits for its first victim and ends that long after it."""
    account = Account(AccountRules())
    account.mischief.arm(f.RefuseAuth(406), for_s=20.0)
    made = session(account=account)
    assert [login(made, now_s).code for now_s in (1_000.0, 1_019.9, 1_020.0)] == [406, 406, None]


def test_rules_are_bounded_and_healed() -> None:
    """Rules do not pile up without end, and healing forgets them."""
    mischief = Mischief()
    for _ in range(MAX_RULES):
        mischief.arm(f.NoGreeting())
    with pytest.raises(ValueError, match="heal"):
        mischief.arm(f.NoGreeting())
    mischief.heal()
    assert mischief.greets(0.0)


def test_406_and_the_ghost() -> None:
    """The slot is one per feed; a clean end frees it, a drop leaves a ghost for its time."""
    account = Account(AccountRules(ghost_s=90.0))
    first, second = session(account=account), session(account=account, number=2)
    assert login(first).code is None
    assert login(second).code == 406
    assert login(session(feed="sip", account=account, number=3)).code is None
    account.release(1, 0.0, clean=True)
    assert login(second).code is None
    account.release(2, 100.0, clean=False)
    third = session(account=account, number=4)
    assert login(third, 189.9).code == 406
    assert login(third, 190.0).code is None


def test_connection_limit_is_adjustable() -> None:
    """A broker's account has more slots, or no limit."""
    for limit, codes in ((2, [None, None, 406]), (None, [None, None, None])):
        account = Account(AccountRules(connection_limit=limit))
        assert [login(session(account=account, number=n)).code for n in range(3)] == codes
