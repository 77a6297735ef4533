"""Quotes to batches: ids assigned, payloads encoded, rows laid out as `append.lua` reads them.

Decides each entry's id, once and for ever, which quotes cannot be stored, and where a gap marker stands. Must
never know Redis or the clock. This is the hot path: one pass per quote, with the arithmetic of `wire.place` written
out; a property test holds the two together.
"""

import struct
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, cast

from ingestor.feed.codec import BAD_TIME
from ingestor.feed.messages import QuoteMessage, read_time
from ingestor.publisher.batch import Batch, Row, StreamEnd, later, pack, time_of
from ingestor.publisher.intake import REJECTED, Hole, Received
from ingestor.publisher.lane import Lane
from wire import ZERO_ID, EntryId, QuoteRow, encode_gap, encode_latest, encode_quote, place
from wire.ids import MAX_AHEAD_NS

_TIMESTAMP_64: Final = 0xD7FF
_LAST_PACKED: Final = (1_000_000_000 << 34) - 1
"""The largest 64-bit form whose nanoseconds are less than a second."""
_INT64: Final = 2**63
NOT_SUBSCRIBED: Final = "not_subscribed"
EXHAUSTED: Final = "stream_exhausted"


@dataclass(slots=True)
class StampCounts:
    """What happened on the way, cumulative since start."""

    stamped: int = 0
    ties: int = 0
    out_of_order: int = 0
    clamped: int = 0
    markers: int = 0
    rejected: Counter[str] = field(default_factory=Counter)
    spellings: Counter[str] = field(default_factory=Counter)
    """Times that were no 64-bit timestamp and were read all the same, by how they were spelt."""


class Rejected(NamedTuple):
    """What has come of a symbol since its last good quote cannot be stored: an episode with a number of its own,
    and why the first of these quotes was rejected, in words."""

    episode: int
    words: str


class Stamper:
    """Knows the tail of every stream that this process writes; makes batches."""

    def __init__(self) -> None:
        self._lanes: dict[str, Lane] = {}
        self._floors: dict[str, StreamEnd] = {}
        self._episodes = 0
        self.epoch: int | None = None
        self.counts = StampCounts()
        self.rejected: dict[str, Rejected] = {}
        """The symbols whose last quote was rejected."""
        self.rejections: dict[str, tuple[str, str]] = {}
        """By reason the last rejection: which symbol, and why in words."""

    def knows(self, symbol: str) -> bool:
        """Whether the tail of this symbol's stream was loaded."""
        return symbol in self._lanes

    def with_quotes(self, symbols: Iterable[str]) -> frozenset[str]:
        """Those of these symbols whose stream has had a quote: only what began can have a hole."""
        lanes = self._lanes
        return frozenset(s for s in symbols if s in lanes and lanes[s].last_time_ns is not None)

    def last_times_ns(self, symbols: Iterable[str]) -> dict[str, int | None]:
        """The venue's time of the last quote of each of these symbols, where its stream is known."""
        lanes = self._lanes
        return {symbol: lanes[symbol].last_time_ns for symbol in symbols if symbol in lanes}

    @property
    def symbols(self) -> frozenset[str]:
        """All symbols whose tail is known."""
        return frozenset(self._lanes)

    def load(self, symbol: str, last: EntryId, last_time_ns: int | None) -> None:
        """The tail of a stream as Redis has it: last id, and the venue time of the last quote if there is one."""
        floor = self._floors.pop(symbol, None)
        exists = last > ZERO_ID
        if floor is not None and floor.last > last:
            last, last_time_ns = floor.last, floor.time_ns if floor.time_ns is not None else last_time_ns
        self._lanes[symbol] = Lane(symbol, last, last_time_ns, exists)

    def raise_floor(self, symbol: str, end: StreamEnd) -> None:
        """Entries up to here have their ids already and are still to be stored; before the tail is loaded."""
        self._floors[symbol] = later(self._floors.get(symbol), end)

    def found(self, symbol: str, last: EntryId | None) -> None:
        """What a server that had lost something still has of a stream: its last id, None for no stream."""
        lane = self._lanes.get(symbol)
        if lane is not None:
            lane.exists = last is not None

    def created(self, symbol: str) -> bool:
        """The stream was begun anew by an entry of ours; True when there should have been one.

        What had been in it is lost, and the next quote stands behind a marker that says so.
        """
        lane = self._lanes.get(symbol)
        if lane is None:
            return False
        vanished, lane.exists = lane.exists, True
        if vanished and lane.since_ns is not None:
            self.open_gap_behind(symbol, lane.since_ns, "stream_lost")
        return vanished

    def end_of(self, symbol: str) -> tuple[EntryId, int | None, int | None]:
        """Of a known symbol: the last id given, and the venue times of the first and the last quote known."""
        lane = self._lanes[symbol]
        return EntryId(lane.last_ms, lane.last_n), lane.since_ns, lane.last_time_ns

    def forget(self, symbol: str) -> None:
        """The stream is gone; quotes of this symbol are not expected any more."""
        self._lanes.pop(symbol, None)
        self.rejected.pop(symbol, None)

    def open_gap(self, symbol: str, from_ns: int, reason: str) -> None:
        """Quotes are missing after the last one stamped, or from `from_ns` if there is none; the marker goes in
        before the next quote of this symbol.

        A hole that is open already keeps its beginning and its reason.
        """
        lane = self._lanes.get(symbol)
        if lane is not None:
            lane.gap_missing = None
            if lane.gap_from_ns is None:
                lane.gap_from_ns = from_ns if lane.last_time_ns is None else lane.last_time_ns
                lane.gap_reason = reason

    def open_gap_behind(self, symbol: str, from_ns: int, reason: str, missing: int | None = None) -> None:
        """Quotes that were stamped are missing after all, from `from_ns` on; a hole that is open grows to it."""
        lane = self._lanes.get(symbol)
        if lane is not None:
            is_new = lane.gap_from_ns is None
            lane.gap_missing = missing if is_new else None
            lane.gap_reason = reason if is_new else lane.gap_reason
            lane.gap_from_ns = from_ns if lane.gap_from_ns is None else min(from_ns, lane.gap_from_ns)

    def stamp(self, frames: Iterable[Received], now_ns: int) -> Batch | None:
        """One batch of all these quotes, or None when none of them can be stored."""
        lanes, counts = self._lanes, self.counts
        newest: dict[str, QuoteRow] = {}
        unpack, encode = _unpack, encode_quote
        limit_ns = now_ns + MAX_AHEAD_NS
        quotes = 0
        markers_before = counts.markers
        first_received_ns = 0
        for received_ns, messages in frames:
            if type(messages) is Hole:
                self._open_all(messages, received_ns)
                continue
            first_received_ns = first_received_ns or received_ns
            for q in cast("list[QuoteMessage]", messages):
                symbol = q.S
                lane = lanes.get(symbol)
                if lane is None:
                    self._reject(symbol, NOT_SUBSCRIBED, "nobody asked for it", received_ns)
                    continue
                try:
                    kind, packed = unpack(q.t)
                    time_ns = (packed & 0x3FFFFFFFF) * 1_000_000_000 + (packed >> 34)
                except struct.error:
                    kind = 0
                if kind != _TIMESTAMP_64 or packed > _LAST_PACKED:
                    try:
                        time_ns = self._unusual_time_ns(q)
                    except ValueError as error:
                        self._reject(symbol, BAD_TIME, str(error), received_ns)
                        continue
                far = time_ns > limit_ns
                if far and time_ns >= _INT64:
                    self._reject(symbol, BAD_TIME, "the time lies behind the year 2262", received_ns)
                    continue
                try:
                    if lane.gap_from_ns is not None:
                        self._mark(symbol, lane, time_ns, now_ns)
                    ms, ns = divmod(time_ns, 1_000_000)
                    n = ns * 1000
                    if far:
                        counts.clamped += 1
                        (ms, n), _ = place(time_ns, EntryId(lane.last_ms, lane.last_n), now_ns)
                    elif ms < lane.last_ms or (ms == lane.last_ms and n <= lane.last_n):
                        ms, n = EntryId(lane.last_ms, lane.last_n).successor()
                        if time_ns == lane.last_time_ns:
                            counts.ties += 1
                        else:
                            counts.out_of_order += 1
                except OverflowError:
                    self._reject(symbol, EXHAUSTED, "its stream has no id left", received_ns)
                    continue
                lane.last_ms, lane.last_n, lane.last_time_ns = ms, n, time_ns
                # fmt: off
                values = (q.bp, q.bs, q.bx, q.ap, q.as_, q.ax, q.c, q.z, time_ns, (received_ns - time_ns) // 1000)
                # fmt: on
                row = lane.row
                if row is None:
                    lane.row = row = [symbol, False]
                row.append(f"{ms}-{n}")
                row.append(encode(values).decode())
                newest[symbol] = values
                quotes += 1
        if not newest:
            return None
        counts.stamped += quotes
        return self._seal(newest, quotes, counts.markers - markers_before, first_received_ns)

    def tail(self, symbol: str) -> EntryId:
        """The last id given to an entry of this symbol; zero for one that is not known."""
        lane = self._lanes.get(symbol)
        return ZERO_ID if lane is None else EntryId(lane.last_ms, lane.last_n)

    def raise_tail(self, symbol: str, last: EntryId) -> None:
        """Ids up to this one are given; the next quote of this symbol comes behind it."""
        lane = self._lanes.get(symbol)
        if lane is not None:
            lane.last_ms, lane.last_n = max(last, EntryId(lane.last_ms, lane.last_n))

    def _open_all(self, hole: Hole, at_ns: int) -> None:
        for symbol in hole.symbols:
            self.open_gap(symbol, at_ns, hole.reason)
            if hole.reason == REJECTED:
                self._note_rejected(symbol, hole.words)

    def _reject(self, symbol: str, reason: str, words: str, at_ns: int) -> None:
        self.counts.rejected[reason] += 1
        self.rejections[reason] = symbol, words
        self.open_gap(symbol, at_ns, REJECTED)
        self._note_rejected(symbol, words)

    def _note_rejected(self, symbol: str, words: str) -> None:
        if symbol in self._lanes and symbol not in self.rejected:
            self._episodes += 1
            self.rejected[symbol] = Rejected(self._episodes, words)

    def _unusual_time_ns(self, message: QuoteMessage) -> int:
        time_ns, spelling = read_time(bytes(message.t))
        if not 0 <= time_ns < _INT64:
            raise ValueError("the time lies outside of the years 1970 to 2262")
        self.counts.spellings[spelling] += 1
        return time_ns

    def _seal(self, newest: dict[str, QuoteRow], quotes: int, markers: int, first_received_ns: int) -> Batch:
        rows: list[Row] = []
        # The lanes' own names: a name out of a frame is one more string for every quote that waits.
        symbols: list[str] = []
        lanes = self._lanes
        for symbol, values in newest.items():
            lane = lanes[symbol]
            row, lane.row = lane.row, None
            assert row is not None
            if lane.since_ns is None:
                lane.since_ns = time_of(str(row[3]))
            row[0] = lane.symbol
            row[1] = encode_latest(symbol, str(row[-2]), values).decode()
            rows.append(row)
            symbols.append(lane.symbol)
        return Batch(symbols, pack(rows), quotes, markers, first_received_ns)

    def _mark(self, symbol: str, lane: Lane, to_ns: int, now_ns: int) -> None:
        assert lane.gap_from_ns is not None
        # A beginning taken from our clock may lie after the venue's time: a delayed feed, or an old tape. The
        # marker must not push the quotes behind it there.
        from_ns = min(lane.gap_from_ns, to_ns)
        entry_id, _ = place(from_ns, EntryId(lane.last_ms, lane.last_n), now_ns)
        entry_id.successor()  # no marker without room for the quote behind it
        if lane.row is None:
            lane.row = [symbol, False]
        lane.row.append(str(entry_id))
        marker = encode_gap(from_ns, to_ns, lane.gap_reason, self.epoch, missing=lane.gap_missing)
        lane.row.append(marker.decode())
        lane.last_ms, lane.last_n = entry_id
        lane.gap_from_ns = lane.gap_missing = None
        self.rejected.pop(symbol, None)
        self.counts.markers += 1


_unpack = struct.Struct(">HQ").unpack
