"""Brings together what is desired on Redis and what the vendor confirmed: the shell around book and desired set.

Decides when to look, and nothing else. Must never know how quotes are published. Each look reads everything; no
notification is ever trusted to say what changed.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final

from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from ingestor.feed.codes import Remedy, why_ended
from ingestor.feed.events import Change, ChangeExpired, ChangeRefused, SessionEnded, SetConfirmed, SlotTaken
from ingestor.feed.messages import Encoding
from ingestor.journal import Journal
from ingestor.publisher.stamper import Stamper
from ingestor.subscriptions.book import SubscriptionBook
from ingestor.subscriptions.desired import SETTLE_S, ChurnGuard, Desired, DesiredSet, Reading
from ingestor.subscriptions.seniority import Earlier
from ingestor.subscriptions.states import Unstored, read_earlier
from ingestor.subscriptions.tails import CHUNK, keep, read_tails
from ingestor.subscriptions.watch import ChangeWatch
from wire import Keyspace

LOOK_EVERY_S: Final = 1.5
"""The safety net under the notifications, and what keeps every change within two seconds without them."""
RETRY_S: Final = 0.25
MANY_MEMBERS: Final = 20_000
"""More than any feed has; somebody's mistake should cost a plan's worth of symbols nothing."""


class Reconciler:
    """The feed's desk: answers what to ask for next, and is told what came of it."""

    def __init__(
        self,
        client: "Redis",
        keys: Keyspace,
        watch: ChangeWatch,
        stamper: Stamper,
        note_hole: Callable[[frozenset[str], str], None],
        journal: Journal,
        *,
        limit: int | None,
        grace_s: float,
    ) -> None:
        self._client = client
        self._keys = keys
        self._watch = watch
        self._stamper = stamper
        self._note_hole = note_hole
        self._asked: frozenset[str] = frozenset()
        self._journal = journal
        self._desired_set = DesiredSet(grace_s)
        self._churn = ChurnGuard()
        self._settle_s = SETTLE_S
        self._last: tuple[Reading, Desired] | None = None
        self.book = SubscriptionBook(limit)
        self.poke_feed: Callable[[], None] = lambda: None
        self.first_look = asyncio.Event()
        self.version = 0
        self.last_look_ns: int | None = None
        self._server_ahead_ms: int | None = None
        """The server's clock less our monotonic one."""

    @property
    def must_end(self) -> SessionEnded | None:
        """Why the feed's session is not worth keeping, or None."""
        return self.book.must_end

    def note_quiet(self, symbols: frozenset[str], reason: str) -> None:
        """These live symbols have no quotes; the reason is what their states say."""
        if symbols != self.book.quiet:
            self.book.quiet, self.book.quiet_reason = symbols, reason
            self.version += 1

    def note_remarks(self, remarks: Mapping[str, str]) -> None:
        """What Alpaca's list of assets says of these symbols; their states tell it, whatever they are."""
        self.book.remarks = remarks
        self.version += 1

    def note_unstored(self, unstored: Unstored) -> None:
        """Whose quotes are not stored; their states give the reasons."""
        if unstored != self.book.unstored:
            self.book.unstored = Unstored(dict(unstored.symbols), unstored.every)
            self.version += 1

    async def run(self) -> None:
        """Look whenever something may have changed, and every `LOOK_EVERY_S`; never returns."""
        while True:
            pause_s = LOOK_EVERY_S
            try:
                await self.look()
            except (RedisError, OSError, TimeoutError) as error:
                # The last good set stays in force; the publisher tells the operator that Redis is away.
                self._journal.note_rarely("symbols_not_read", "redis", reason=f"{error}"[:200])
                pause_s = RETRY_S
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._watch.changed.wait()
                await asyncio.sleep(self._settle_s)
            self._watch.changed.clear()

    async def look(self) -> None:
        """One pass: read, decide, make ready, ask."""
        reading = await self._read()
        now_s = time.monotonic()
        desired = await self._observe(reading, now_s) if self._is_new(reading, now_s) else self._desired
        await self._make_ready(desired)
        if desired != self._desired or not self.first_look.is_set():
            changed = frozenset(self._desired.symbols).symmetric_difference(desired.symbols)
            self._settle_s = self._churn.settle_s(changed, now_s)
            if self._last is None:
                self.book.recall(await self._earlier(sorted(desired.leased)))
            self._tell(self._desired, desired)
            self.book.desire(desired)
            self.version += 1
        self._last = (reading, desired)
        self.last_look_ns = time.time_ns()
        self.first_look.set()
        self.poke_feed()

    def next_change(self, now_s: float) -> Change | None:
        """The request to send now."""
        change = self.book.next_change(now_s)
        if change is not None:
            self.version += 1
            new = frozenset(change.subscribe) - self._asked
            # Whatever came of it before, in this session it was not subscribed until now.
            self._note_hole(self._stamper.with_quotes(new), "not_subscribed")
            self._asked = (self._asked | new) - frozenset(change.unsubscribe)
        return change

    def on_ready(self, encoding: Encoding) -> None:
        """The feed has an authenticated session."""
        self.book.connected()
        self.version += 1
        self._journal.note("connected", encoding=encoding)

    def on_slot_taken(self, taken: SlotTaken, attempt: int) -> None:
        """Somebody holds the account's connection, and the feed waits for it."""
        self._journal.note_rarely(
            "slot_taken",
            "vendor",
            code=taken.code.number,
            reason=taken.code.meaning,
            attempt=attempt,
            next_in_s=round(taken.pause_s, 3),
        )

    def on_confirmed(self, event: SetConfirmed) -> None:
        """The vendor acknowledged a set."""
        added = event.symbols - self.book.confirmed
        removed = self.book.confirmed - event.symbols
        self.book.confirm(event.symbols, event.change, asyncio.get_running_loop().time())
        self.version += 1
        if added:
            self._journal.note("subscribed", count=len(added), symbols=some(added))
        if removed:
            self._journal.note("unsubscribed", count=len(removed), symbols=some(removed))

    def on_refused(self, event: ChangeRefused) -> None:
        """The vendor refused a request whole."""
        asked = event.change.subscribe or event.change.unsubscribe
        self.book.refuse(event.change, event.code, asyncio.get_running_loop().time(), event.words)
        self.version += 1
        if event.code.remedy is Remedy.LIMIT:
            self._journal.note_rarely(
                "limit_reached", "vendor", code=event.code.number, limit=self.book.limit
            )
        elif len(asked) == 1:
            self._journal.note_rarely(
                "refused", asked[0], code=event.code.number, reason=why_ended(event.code, event.words)
            )

    def on_expired(self, event: ChangeExpired) -> None:
        """The vendor did not answer a request."""
        self.book.expire(event.change, asyncio.get_running_loop().time())
        ended = self.book.must_end
        self._journal.note("no_acknowledgement", "warning", must_reconnect=ended.reason if ended else None)

    def on_ended(self, ended: SessionEnded, attempt: int, pause_s: float) -> None:
        """The session is over: from now on every confirmed symbol has a hole."""
        # Quotes may flow before the acknowledgement does, so what was only asked for has a hole as well.
        self._note_hole(self.book.confirmed | self._asked, "feed_disconnected")
        self._asked = frozenset()
        level = "error" if ended.remedy in (Remedy.REJECTED, Remedy.SLOT_TAKEN) else "warning"
        self._journal.note(
            "disconnected",
            level,
            reason=ended.reason,
            finding=ended.kind,
            code=ended.code.number if ended.code else None,
            remedy=ended.remedy.value,
            attempt=attempt,
            next_in_s=round(pause_s, 3),
            symbols=len(self.book.confirmed),
        )
        self.book.disconnected()
        self.version += 1

    @property
    def _desired(self) -> Desired:
        return self._last[1] if self._last else Desired()

    def _is_new(self, reading: Reading, now_s: float) -> bool:
        due_s = self._desired_set.look_again_at_s
        return self._last is None or reading != self._last[0] or (due_s is not None and now_s >= due_s)

    async def _observe(self, reading: Reading, now_s: float) -> Desired:
        if len(reading.members or ()) + len(reading.leases) <= MANY_MEMBERS:
            return self._desired_set.observe(reading, now_s)
        # A thread gives the interpreter back every few milliseconds; the quotes cannot wait for a sorted list.
        return await asyncio.to_thread(self._desired_set.observe, reading, now_s)

    async def _read(self) -> Reading:
        if self._server_ahead_ms is None:
            first = self._client.pipeline(transaction=False)
            first.time()
            self._note_time(await first.execute(raise_on_error=False))
        now_ms = time.monotonic_ns() // 1_000_000 + (self._server_ahead_ms or 0)
        pipe = self._client.pipeline(transaction=False)
        pipe.smembers(self._keys.symbols)
        pipe.zrangebyscore(self._keys.interest, now_ms, "+inf")
        pipe.hmget(self._keys.writer, "began")
        pipe.time()
        members, leases, writer, *server_time = await pipe.execute(raise_on_error=False)
        self._note_time(server_time)
        return Reading(
            None if _is_wrong_type(members) else frozenset(_good(members)),
            frozenset() if _is_wrong_type(leases) else frozenset(_good(leases)),
            _good(writer) != [None],
        )

    async def _earlier(self, leased: Sequence[str]) -> dict[str, Earlier]:
        """What an earlier run wrote of these symbols: who was in is to stay in."""
        found: dict[str, Earlier] = {}
        for start in range(0, len(leased), CHUNK):
            some = leased[start : start + CHUNK]
            values: list[Any] = await self._client.hmget(self._keys.subscriptions, some)
            for symbol, value in zip(some, values, strict=True):
                if (earlier := read_earlier(value)) is not None:
                    found[symbol] = earlier
        return found

    def _note_time(self, reply: list[Any]) -> None:
        """Leases end by the server's clock: when this machine's is set anew, none of them ends for that."""
        (at,) = reply
        if isinstance(at, ResponseError):
            # A user without the right to TIME: our own clock has to do.
            at = divmod(time.time_ns() // 1_000, 1_000_000)
        elif isinstance(at, Exception):
            raise at
        self._server_ahead_ms = at[0] * 1_000 + at[1] // 1_000 - time.monotonic_ns() // 1_000_000

    async def _make_ready(self, desired: Desired) -> None:
        before = frozenset(self._desired.symbols)
        back = [s for s in desired.symbols if s not in before and self._stamper.knows(s)]
        # A stream that nobody wanted may have an expiry, which must go before the symbol is live again.
        await keep(self._client, self._keys, back)
        new = [symbol for symbol in desired.symbols if not self._stamper.knows(symbol)]
        if not new:
            return
        now_ns = time.time_ns()
        reason = "not_subscribed" if self.first_look.is_set() else "daemon_stopped"
        for symbol, tail in (await read_tails(self._client, self._keys, new)).items():
            self._stamper.load(symbol, tail.last, tail.time_ns)
            if self._stamper.with_quotes((symbol,)):
                self._stamper.open_gap(symbol, now_ns, reason)

    def _tell(self, before: Desired, after: Desired) -> None:
        added = set(after.symbols) - set(before.symbols)
        removed = set(before.symbols) - set(after.symbols)
        if added:
            self._journal.note("symbols_added", count=len(added), symbols=some(added))
        if removed:
            self._journal.note("symbols_removed", count=len(removed), symbols=some(removed))
        for shown, why in after.junk.items():
            if shown not in before.junk:
                self._journal.note_rarely("refused", shown, reason=why)
        if after.held and after.held != before.held:
            self._journal.note("symbols_held", "warning", reason=after.held)


def _is_wrong_type(reply: Any) -> bool:
    return isinstance(reply, ResponseError) and str(reply).startswith("WRONGTYPE")


def _good(reply: Any) -> Any:
    if isinstance(reply, Exception):
        raise reply
    return reply


def some(symbols: Collection[str]) -> str:
    """The first of these in a line, and how many more there are."""
    shown = sorted(symbols)[:20]
    return " ".join(shown) + (f" and {len(symbols) - len(shown)} more" if len(symbols) > len(shown) else "")
