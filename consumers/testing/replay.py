"""Plays a recording onto a bus, for a strategy that reads it through the same calls as in production.

Decides when to publish, and when to wait for the readers. Must never know how entries are written (`publisher`) or
when they are due (`pace`).
"""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, Protocol, TypeAlias

from consumers.arguments import is_count
from consumers.testing.memory import MemoryBus
from consumers.testing.pace import Pace, Times, time_of
from consumers.testing.publisher import Publisher
from consumers.testing.recordings import read_recording
from wire import EntryId, Gap, Quote

Source: TypeAlias = Iterable[Quote | Gap] | AsyncIterable[Quote | Gap] | Path | str
"""Items in memory, from a loop such as `bus.history(...)`, or a file for `read_recording`."""

AHEAD: Final = 500
"""Entries that are published before the readers must have had them."""
BEAT_S: Final = 1.0
_POLL_S: Final = 0.002


class Positioned(Protocol):
    """What a replay must know of an iteration, such as a `QuoteStream`."""

    @property
    def positions(self) -> Mapping[str, str]:
        """Symbol -> id of the last entry that was handed out."""
        ...

    @property
    def symbols(self) -> frozenset[str]:
        """What it follows."""
        ...


async def replay(
    source: Source,
    into: MemoryBus | Publisher,
    *,
    speed: float | None = None,
    times: Times = "recorded",
    readers: int = 1,
    streams: Sequence[Positioned] = (),
    ahead: int = AHEAD,
    timeout_s: float = 60.0,
) -> int:
    """Publish a recording and return the number of items, once all of them have been read.

    `speed` is recorded seconds per second; None is as fast as the strategy reads: at most `ahead` entries are
    published before everybody has read them, so that no stream is trimmed before. `times` says how they are
    dated, see `Times`.

    On a bus in memory it begins when so many `readers` wait (0: nobody has to), and keeps up with everyone who
    reads. On a `Publisher` to a real server nobody knows who reads: name the `streams` to keep up with. Without
    them and without a `speed`, the publisher must have `maxlen=None`, or `ValueError` is raised.

    Raises `TimeoutError` when readers do not come, or do not read on, within `timeout_s`; `BadRecording`;
    `ValueError` for choices that contradict each other; whatever publishing raises.
    """
    pace = Pace(speed, times)
    if not is_count(ahead, 1):
        raise ValueError(f"ahead={ahead!r}: take 1 or more entries")
    if isinstance(into, Publisher) and speed is None and not streams and into.maxlen is not None:
        raise ValueError(
            "as fast as who reads? name the streams, or take a speed, or a Publisher with maxlen=None"
        )
    audience = _Audience(into, readers, streams, timeout_s)
    publisher = into.publisher if isinstance(into, MemoryBus) else into
    await audience.assemble()
    loop = asyncio.get_running_loop()
    batch: list[Quote | Gap] = []
    count = 0
    async for item in _items(source):
        due_s = pace.due_s(item, loop.time(), time.time_ns())
        if batch and (due_s > loop.time() or len(batch) >= ahead):
            await audience.read(await publisher.publish(*batch), at_once=speed is None)
            batch.clear()
        while (left_s := due_s - loop.time()) > 0:
            await asyncio.sleep(min(left_s, BEAT_S))
            if left_s > BEAT_S:
                await publisher.beat()
        batch.append(pace.dated(item))
        count += 1
    await audience.read(await publisher.publish(*batch), at_once=True)
    return count


async def by_time(*sources: Source) -> AsyncGenerator[Quote | Gap, None]:
    """The items of several recordings in order of their times, as one recording; each alone must be in order."""
    open_sources = [aiter(_items(source)) for source in sources]
    heads = [(await anext(items, None), items) for items in open_sources]
    while True:
        waiting = [(head, items) for head, items in heads if head is not None]
        if not waiting:
            return
        first, items = min(waiting, key=lambda pair: time_of(pair[0]))
        yield first
        heads = [(await anext(each, None) if each is items else head, each) for head, each in heads]


class _Audience:
    """Who is to be kept up with."""

    def __init__(
        self, into: MemoryBus | Publisher, readers: int, streams: Sequence[Positioned], timeout_s: float
    ) -> None:
        self._memory = into if isinstance(into, MemoryBus) else None
        self._readers = readers
        self._streams = streams
        self._timeout_s = timeout_s
        self._last: dict[str, EntryId] = {}

    async def assemble(self) -> None:
        """Wait for those who must be there from the beginning."""
        if self._memory is not None and self._readers:
            await self._memory.caught_up(self._readers, timeout_s=self._timeout_s)
        await self._until_all(lambda stream: stream.symbols <= stream.positions.keys(), "has begun to read")

    async def read(self, stored: Sequence[Quote | Gap], *, at_once: bool) -> None:
        """Wait until these have been read, where that matters."""
        self._last.update((item.symbol, EntryId.parse(item.id or "0")) for item in stored)
        if not at_once:
            return
        if self._memory is not None and self._readers:
            await self._memory.caught_up(0, timeout_s=self._timeout_s)
        await self._until_all(self._is_behind_nothing, "has read on")

    def _is_behind_nothing(self, stream: Positioned) -> bool:
        positions = stream.positions
        return all(
            EntryId.parse(positions[symbol]) >= last
            for symbol, last in self._last.items()
            if symbol in positions
        )

    async def _until_all(self, is_so: "_Condition", what: str) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                while not all(is_so(stream) for stream in self._streams):  # noqa: ASYNC110
                    await asyncio.sleep(_POLL_S)
        except TimeoutError:
            late = sum(not is_so(stream) for stream in self._streams)
            raise TimeoutError(
                f"after {self._timeout_s:g} s not every stream {what} ({late} of {len(self._streams)} are late): "
                "does each loop run?"
            ) from None


class _Condition(Protocol):
    def __call__(self, stream: Positioned, /) -> bool: ...


async def _items(source: Source) -> AsyncGenerator[Quote | Gap, None]:
    if isinstance(source, str | Path):
        source = read_recording(source)
    if isinstance(source, AsyncIterable):
        async for item in source:
            yield item
    else:
        for item in source:
            yield item
