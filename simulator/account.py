"""The vendor's side of the conversation: one account with its slots, and one session per connection.

Decides every answer to what a client sends: greeting, login, the whole-set acknowledgement, each refusal with its
code, and who holds the account's connection, ghosts included. Must never know sockets or the clock: bytes and
monotonic seconds are arguments, messages are results.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from ingestor.feed.codes import code_of
from ingestor.feed.messages import (
    AUTHENTICATED,
    GREETING,
    Authenticate,
    Encoding,
    Error,
    Subscription,
    Success,
)
from simulator.channels import CHANNELS, TEST_CHANNELS, StockSubscribe, StockSubscription, parse_request
from simulator.credentials import credentials_of
from simulator.faults import NoAuthAnswer, RequestKind
from simulator.market import TEST_SYMBOL
from simulator.mischief import Mischief, Quirk
from wire.symbols import is_word

FEEDS: Final[dict[str, str]] = {
    "/v2/iex": "iex",
    "/v2/sip": "sip",
    "/v2/delayed_sip": "delayed_sip",
    "/v1beta1/boats": "boats",
    "/v1beta1/overnight": "overnight",
    "/v2/test": "test",
}
"""Path of the upgrade request -> feed."""

PATHS: Final[dict[str, str]] = {feed: path for path, feed in FEEDS.items()}
TEST_FEED: Final = "test"

_POLICY_VIOLATION: Final = 1008


ActionKind: TypeAlias = Literal["connect", "auth", "subscribe", "unsubscribe", "malformed", "timeout"]


@dataclass(frozen=True)
class AccountRules:
    """What the account may do.

    `symbol_limit` counts each symbol once per channel of trades and quotes. `connection_limit` is per feed.
    `star_code` is the refusal of the wildcard; None allows it, unless there is a symbol limit (then 405).
    `refused_symbols` look like symbols and are malformed to the vendor all the same (400). `inactive_symbols` and
    `untradable_symbols` are so as assets; the stream confirms them like any other. None for key and
    secret accepts whatever is not empty; None for `feeds_in_plan` is every feed. `calls_per_minute` is of REST, per
    key.
    """

    symbol_limit: int | None = None
    connection_limit: int | None = 1
    ghost_s: float = 90.0
    auth_timeout_s: float = 10.0
    key: str | None = None
    secret: str | None = None
    star_code: int | None = None
    feeds_in_plan: frozenset[str] | None = None
    msgpack_only: bool = False
    refused_symbols: frozenset[str] = frozenset()
    inactive_symbols: frozenset[str] = frozenset()
    untradable_symbols: frozenset[str] = frozenset()
    calls_per_minute: int = 200

    def accept(self, key: str, secret: str) -> bool:
        """Whether these credentials are the account's."""
        return bool(key and secret) and (self.key or key) == key and (self.secret or secret) == secret


@dataclass(frozen=True)
class Answer:
    """What one client message led to: for the log, and for the wire.

    `code` is the vendor's error, None when the request was granted. `messages` go out after `delay_s` seconds;
    `close_code` closes the connection after them. `quotes` and `trades` are what the request named.
    """

    kind: ActionKind
    messages: tuple[Success | Error | Subscription, ...] = ()
    code: int | None = None
    delay_s: float = 0.0
    close_code: int | None = None
    quotes: tuple[str, ...] = ()
    trades: tuple[str, ...] = ()


class Account:
    """The slots of one account: who is connected where, and whose ghost still is."""

    def __init__(self, rules: AccountRules, mischief: Mischief | None = None) -> None:
        self.rules: Final = rules
        self.mischief: Final = mischief or Mischief()
        self._holders: dict[int, str] = {}
        self._ghosts: list[tuple[str, float]] = []

    def acquire(self, session_id: int, feed: str, now_s: float) -> bool:
        """Take a slot of this feed, if one is free."""
        limit = self.rules.connection_limit
        if limit is not None and self.taken(feed, now_s) >= limit:
            return False
        self._holders[session_id] = feed
        return True

    def release(self, session_id: int, now_s: float, *, clean: bool) -> None:
        """The connection is gone. Unless it was closed cleanly, a ghost keeps its slot for `ghost_s` seconds."""
        feed = self._holders.pop(session_id, None)
        if feed is not None and not clean and self.rules.ghost_s > 0:
            self._ghosts.append((feed, now_s + self.rules.ghost_s))

    def taken(self, feed: str, now_s: float) -> int:
        """How many slots of the feed are not free."""
        self._ghosts = [ghost for ghost in self._ghosts if ghost[1] > now_s]
        return sum(held == feed for held in self._holders.values()) + sum(
            held == feed for held, _ in self._ghosts
        )

    def exorcise(self) -> None:
        """Every ghost is gone, now."""
        self._ghosts.clear()


class Session:
    """One connection's conversation."""

    def __init__(
        self, account: Account, session_id: int, feed: str, encoding: Encoding, now_s: float
    ) -> None:
        self.id: Final = session_id
        self.feed: Final = feed
        self.encoding: Final = encoding
        self.authenticated = False
        self._account = account
        self._deadline_s: float | None = now_s + account.rules.auth_timeout_s
        names = TEST_CHANNELS if feed == TEST_FEED else CHANNELS
        self._sets: dict[str, dict[str, None]] = {name: {} for name in names}
        self._live: frozenset[str] | None = frozenset()

    @property
    def deadline_s(self) -> float | None:
        """The monotonic second until which credentials must arrive; None once they have."""
        return self._deadline_s

    @property
    def quotes(self) -> frozenset[str]:
        """The session's set of the quotes channel, the wildcard as `*`."""
        return frozenset(self._sets["quotes"])

    @property
    def trades(self) -> frozenset[str]:
        """The session's set of the trades channel."""
        return frozenset(self._sets["trades"])

    @property
    def live(self) -> frozenset[str] | None:
        """The symbols whose quotes this session is sent; None is all."""
        return self._live

    def open(self, headers: Mapping[str, str], now_s: float) -> Answer:
        """The first words, which include the answer to credentials in the upgrade's headers (lower-case names)."""
        if not self._account.mischief.greets(now_s):
            return Answer("connect")
        greeting = Success(GREETING)
        try:
            credentials = credentials_of(headers)
        except ValueError:
            credentials = ("", "")
        if credentials is None:
            return Answer("connect", (greeting,))
        answer = self._login(*credentials, now_s)
        return Answer("connect", (greeting, *answer.messages), answer.code)

    def receive(self, raw: bytes | str, now_s: float) -> Answer:
        """The answer to one client message."""
        request = parse_request(raw, self.encoding)
        if request is None:
            return _refusal("malformed", 400)
        if isinstance(request, Authenticate):
            if self.authenticated:
                return _refusal("auth", 403)
            return self._login(request.key, request.secret, now_s)
        kind: RequestKind = "subscribe" if isinstance(request, StockSubscribe) else "unsubscribe"
        named = tuple(request.quotes), tuple(request.trades)
        if not self.authenticated:
            return _refusal(kind, 401, *named)
        asked: dict[str, list[str]] = {
            name: symbols for name in CHANNELS if (symbols := getattr(request, name))
        }
        quirk = self._account.mischief.request(
            kind, now_s, {s for symbols in asked.values() for s in symbols}
        )
        if quirk.close is not None:
            return Answer(kind, close_code=quirk.close, quotes=named[0], trades=named[1])
        code = quirk.error or self._why_not(kind, asked)
        if code is not None:
            return _refusal(kind, code, *named, msg=quirk.msg)
        if kind == "subscribe":
            self._add(asked, quirk)
        elif not quirk.ignore:
            for name, symbols in asked.items():
                for symbol in symbols:
                    self._sets[name].pop(symbol, None)
        self._look()
        messages = () if quirk.silent else (self.acknowledgement(),) * (1 + quirk.twice)
        return Answer(kind, messages, delay_s=quirk.delay_s, quotes=named[0], trades=named[1])

    def expire(self, now_s: float) -> Answer | None:
        """404 and the end, if credentials are overdue."""
        if self._deadline_s is None or now_s < self._deadline_s:
            return None
        self._deadline_s = None
        return Answer("timeout", (_error(404),), 404, close_code=_POLICY_VIOLATION)

    def acknowledgement(self) -> Subscription:
        """The session's whole set, as it is now."""
        sets = {name: sorted(symbols) for name, symbols in self._sets.items()}
        if self.feed == TEST_FEED:
            return Subscription(**sets)
        return StockSubscription(**sets, corrections=sets["trades"], cancel_errors=sets["trades"])

    def _login(self, key: str, secret: str, now_s: float) -> Answer:
        # Only silence runs into the deadline: a client refused with 406 may try again on the same connection.
        self._deadline_s = None
        rules, account = self._account.rules, self._account
        fault = account.mischief.auth(now_s)
        if isinstance(fault, NoAuthAnswer):
            return Answer("auth")
        if fault is not None:
            return _refusal("auth", fault.code)
        if not rules.accept(key, secret):
            return _refusal("auth", 402)
        if rules.feeds_in_plan is not None and self.feed not in rules.feeds_in_plan:
            return _refusal("auth", 409)
        if rules.msgpack_only and self.encoding != "msgpack":
            return _refusal("auth", 412)
        if not account.acquire(self.id, self.feed, now_s):
            return _refusal("auth", 406)
        self.authenticated = True
        return Answer("auth", (Success(AUTHENTICATED),))

    def _why_not(self, kind: RequestKind, asked: Mapping[str, Iterable[str]]) -> int | None:
        rules = self._account.rules
        if not asked:
            return 400
        if any(name not in self._sets for name in asked):
            return 410
        symbols = {symbol for channel in asked.values() for symbol in channel}
        star = "*" in symbols
        symbols.discard("*")
        if not all(map(is_word, symbols)):
            return 400
        if kind == "unsubscribe":
            return None
        if not rules.refused_symbols.isdisjoint(symbols):
            return 400
        if star and rules.star_code is not None:
            return rules.star_code
        if rules.symbol_limit is not None:
            counted = sum(
                len(self._sets[name].keys() | set(asked.get(name, ()))) for name in ("quotes", "trades")
            )
            if counted > rules.symbol_limit or (star and not {"quotes", "trades"}.isdisjoint(asked)):
                return 405
        return None

    def _add(self, asked: Mapping[str, list[str]], quirk: Quirk) -> None:
        for name, symbols in asked.items():
            self._sets[name].update(dict.fromkeys(symbols[: quirk.take]))
        self._sets["quotes"].update(dict.fromkeys(quirk.extra))

    def _look(self) -> None:
        quotes = self.quotes
        if self.feed == TEST_FEED:
            self._live = frozenset({TEST_SYMBOL} if "*" in quotes or TEST_SYMBOL in quotes else ())
        else:
            self._live = None if "*" in quotes else quotes


def _error(code: int, msg: str | None = None) -> Error:
    return Error(code, code_of(code).msg if msg is None else msg)


def _refusal(
    kind: ActionKind,
    code: int,
    quotes: tuple[str, ...] = (),
    trades: tuple[str, ...] = (),
    msg: str | None = None,
) -> Answer:
    return Answer(kind, (_error(code, msg),), code, quotes=quotes, trades=trades)
