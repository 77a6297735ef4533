"""What a worker holds: the loop over its deliveries, acknowledgements, symbols that come and go, and the lag.

Decides when an entry counts as handed over. Must never know how entries are asked for (`share` does).
"""

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncGenerator
from importlib import resources
from typing import ClassVar, Final

from redis.exceptions import RedisError

from consumers.arguments import check_seconds, is_count
from consumers.errors import BusError, BusUnavailable
from consumers.groups.book import HELD_MAX
from consumers.groups.delivery import Delivery, GroupLag
from consumers.groups.lag import count_question, lag_questions, measure
from consumers.groups.record import TAG
from consumers.groups.share import Share
from consumers.groups.track import Run, Track
from consumers.reading.entry import decode_entry
from consumers.reading.start import parse_symbols
from consumers.reading.stream import Attendance, Stream
from consumers.reconnect import Loudness
from consumers.shared_link import SharedLink
from wire import BadEntry

_log = logging.getLogger(__name__)

FLUSH_AT: Final = 100
"""Automatic acknowledgements that wait at most, before they are sent between two items."""
LAGS_AT_ONCE: Final = 100
LEAVE: Final = resources.files("consumers.groups").joinpath("leave.lua").read_bytes()
LEFT_AT_ONCE: Final = 250
LEAVE_WITHIN_S: Final = 2.0
NAME_MAX: Final = 200
RELEASE_MAX: Final = 1_000
"""Pending entries of one stream that a leaving worker releases; others wait for `claim_after_s`."""
RELEASED_IDLE_MS: Final = 365 * 86_400_000
"""For a year: longer than anybody's `claim_after_s`, and not before 1970."""


class GroupStream(Stream[Delivery]):
    """This worker's share of some symbols' entries, to be read with `async for`; made by `Bus.group`.

    Yields `Delivery`. Entries of one symbol come in the stream's order, but for those that are delivered again.
    Leaving the loop closes the connection; what was handed over and not acknowledged stays this worker's, and
    another `async for` begins with what was read and not handed over. `async with` leaves for good at its end.
    """

    _SKIPPED: ClassVar[str] = "acknowledged unread"

    def __init__(
        self,
        share: Share,
        shared: SharedLink,
        symbols: tuple[object, ...],
        start: object,
        *,
        claim_after_s: float,
        auto_ack: bool,
        leave: bool,
        attendance: Attendance | None = None,
    ) -> None:
        super().__init__(share, shared, symbols, start, attendance=attendance)
        self._share: Final = share
        self._book: Final = share.book
        self._auto_ack: Final = auto_ack
        self._leaves: Final = leave
        self._renew_after_s: Final = claim_after_s / 2
        self._owed: Final[deque[Run]] = deque()
        self._renewed_at_s = 0.0
        self._loudness: Final = Loudness()

    @property
    def group(self) -> str:
        """The group's name."""
        return self._share.group

    @property
    def consumer(self) -> str:
        """This worker's name in the group."""
        return self._share.consumer

    @property
    def unacknowledged(self) -> int:
        """Entries handed over by this object and not acknowledged."""
        return self._book.held

    @property
    def acks_waiting(self) -> int:
        """Acknowledgements that Redis has not confirmed; they are sent again with each step of the loop."""
        return self._book.waiting

    async def ack(self, *deliveries: Delivery) -> None:
        """These have been handled and shall not be delivered again; many at once cost one round trip.

        When Redis does not answer, returns all the same: the loop sends them again when it is back, and until
        then they count as `acks_waiting`. Gaps without an id need none and are ignored. Raises `BusUnavailable`
        when Redis refuses us, `BusClosed` after the bus was closed, `TypeError` for what is no `Delivery`.
        """
        self._share.check_process()
        self._shared.check_open()
        for delivery in deliveries:
            if not isinstance(delivery, Delivery):
                raise TypeError(
                    f"ack() got a {type(delivery).__name__}: pass deliveries one by one, as in ack(*deliveries)"
                )
            if delivery.id is not None:
                self._book.done(delivery.symbol, delivery.id)
        sending = self._book.sending()
        if not sending.commands:
            return
        try:
            await self._shared.ask(*sending.commands)
        except BusUnavailable as error:
            # After one attempt it is a refusal, which will not pass; after two Redis is away, which may.
            if error.attempts == 1:
                raise
            level = self._loudness.level(asyncio.get_running_loop().time())
            _log.log(level, "group %s: %d acknowledgements wait: %s", self.group, self._book.waiting, error)
            return
        self._book.settle(sending.ids)

    async def lag(self, *symbols: str) -> dict[str, GroupLag]:
        """How far the group is behind in each symbol (all of this worker's, if none is named), and who has what.

        Right after trimming, too. Raises `BadSymbol`, `BusUnavailable`, `BusClosed`.
        """
        names = parse_symbols(symbols) if symbols else sorted(self.symbols)
        keys, group = self._share.keys, self.group
        found: dict[str, GroupLag] = {}
        for at in range(0, len(names), LAGS_AT_ONCE):
            some = names[at : at + LAGS_AT_ONCE]
            parts = [lag_questions(keys, group, symbol) for symbol in some]
            replies = await self._shared.ask(*(command for part in parts for command in part))
            size = len(parts[0])
            for symbol, executed in zip(some, replies[size - 1 :: size], strict=True):
                question = count_question(keys, group, symbol, executed)
                behind = None if question is None else (await self._shared.ask(question))[0]
                found[symbol] = measure(group, symbol, executed, behind)
        return found

    async def aclose(self) -> None:
        """End the loop, wherever it waits, send what is to be acknowledged, and close the connection.

        With `leave` the worker's name is taken off each group where it has nothing pending, and what it has pending
        may be claimed by others at once. May be called again.
        """
        if self._share.is_closed:
            return
        await super().aclose()
        if not self._shared.is_open:
            return
        with contextlib.suppress(BusError, RedisError, TimeoutError):
            async with asyncio.timeout(LEAVE_WITHIN_S):
                await self.ack()
                await self._share.part(self._shared)
                if self._leaves:
                    await self._take_off()

    def __repr__(self) -> str:
        return f"<GroupStream {self.consumer} in {self.group}, {len(self.symbols)} symbols>"

    async def _steps(self) -> AsyncGenerator[Delivery | None, None]:
        turn = await self._enter()
        clock = asyncio.get_running_loop().time
        try:
            while not self._share.is_closed:
                # Gaps that an earlier loop had found and was left before: unlike entries, Redis has them no more.
                while self._owed:
                    if (told := self._told(self._owed.popleft())) is not None:
                        yield told
                        self._check(turn)
                if self._book.held >= HELD_MAX:
                    raise self._forgotten()
                runs = await self._share.next_runs()
                is_due = self._share.is_due
                if runs or is_due:
                    self._share.handed_over()
                self._owed.extend(run for run in runs if run.gap is not None)
                self._renewed_at_s = self._share.asked_at_s
                for number, run in enumerate(runs):
                    track, entries = run.track, run.entries
                    if run.gap is not None and (told := self._told(self._owed.popleft())) is not None:
                        yield told
                        self._check(turn)
                    mine: set[str] | None = None
                    for at, (raw_id, fields) in enumerate(entries):
                        if track.dropped:
                            break
                        if clock() - self._renewed_at_s > self._renew_after_s:
                            mine = await self._renew(runs[number:], at)
                            self._check(turn)
                        entry_id = raw_id.decode()
                        if mine is not None and entry_id not in mine:
                            continue
                        delivery = self._delivery(run, entry_id, fields)
                        if delivery is None:
                            continue
                        self._book.hand(track.symbol, entry_id)
                        yield delivery
                        self._check(turn)
                        if self._auto_ack:
                            self._book.done(track.symbol, entry_id)
                            if self._book.waiting >= FLUSH_AT:
                                await self._share.flush()
                if not runs and is_due:
                    yield None
        finally:
            if turn == self._turn and self._auto_ack:
                await self._share.flush()
            await self._leave(turn)

    def _told(self, run: Run) -> Delivery | None:
        """The gap of this run, and the note that the strategy has it, which is sent with the next step."""
        if run.gap is None or run.track.dropped:
            return None
        if run.debt is not None:
            self._share.told(run.track, run.debt)
        return Delivery(run.gap, run.track.symbol, None)

    def _delivery(self, run: Run, entry_id: str, fields: list[bytes]) -> Delivery | None:
        symbol = run.track.symbol
        try:
            item = decode_entry(symbol, entry_id, fields)
        except BadEntry as error:
            self._book.done(symbol, entry_id)
            self._skipped(error)
            return None
        return Delivery(item, symbol, entry_id, run.times.get(entry_id, 1), entry_id in run.claimed)

    async def _renew(self, runs: list[Run], at: int) -> set[str]:
        """Ask which of the entries in hand still are ours, and keep those; the others have been claimed."""
        rest: dict[Track, list[str]] = {}
        for run in runs:
            ids = rest.setdefault(run.track, [])
            ids += [raw_id.decode() for raw_id, _ in run.entries[at if run is runs[0] else 0 :]]
        # As of before it was asked: this process may be stopped meanwhile.
        self._renewed_at_s = asyncio.get_running_loop().time()
        mine = await self._share.renew(rest)
        for run in runs[1:]:
            kept = mine.get(run.track, set())
            run.entries[:] = [entry for entry in run.entries if entry[0].decode() in kept]
        return mine.get(runs[0].track, set())

    async def _take_off(self) -> None:
        """Remove this worker's name where nothing of it is pending: nobody else can be given entries under it.

        What is pending, others may claim at once: nobody will come back for it under a name that was made up.
        """
        last = self.group, self.consumer, RELEASE_MAX, RELEASED_IDLE_MS
        keys = [self._share.keys.stream(symbol) for symbol in sorted(self.symbols)]
        for start in range(0, len(keys), LEFT_AT_ONCE):
            some = keys[start : start + LEFT_AT_ONCE]
            await self._shared.ask_each(*(("EVAL", LEAVE, 1, key, *last) for key in some))

    def _check(self, turn: int) -> None:
        if turn != self._turn:
            raise self._taken_over()

    def _forgotten(self) -> BusError:
        return BusError(
            f"{self!r} has {self._book.held} deliveries that were not acknowledged: call "
            "`await stream.ack(delivery)` when each is done, or pass auto_ack=True"
        )


def check_group(group: object, consumer: object, claim_after_s: float, prefetch: object) -> None:
    """Raise `ValueError` for an argument of `Bus.group` that cannot be used."""
    for what, name in (("group", group), ("consumer", consumer)):
        is_usable = isinstance(name, str) and 1 <= len(name) <= NAME_MAX and name.isprintable()
        if isinstance(name, str) and what == "consumer" and name.startswith(TAG):
            raise ValueError(
                f"consumer={name[:60]!r} is not usable: {TAG} is how generations of a group are named"
            )
        if not is_usable or " " in str(name):
            raise ValueError(
                f"{what}={str(name)[:60]!r} is not usable: take 1 to {NAME_MAX} printable characters without spaces"
            )
    check_seconds("claim_after_s", claim_after_s)
    if not is_count(prefetch, 1, 100_000):
        raise ValueError(f"prefetch={prefetch!r}: take 1 to 100000 entries")
