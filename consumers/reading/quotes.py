"""Every quote, handed over one by one or in batches.

Decides when a position moves: with the item that is handed over, never before. Must never hold entries back: what a
read brought is handed out before the next one is asked for, so memory stays that of one reply.
"""

from collections.abc import AsyncGenerator, Iterator
from typing import Final

from consumers.reading.entry import QUOTE, decode_entry
from consumers.reading.freshness import AgeGuard
from consumers.reading.gaps import Anchor
from consumers.reading.reader import Reader
from consumers.reading.track import Run, Track
from wire import BadEntry, Gap, Quote, decode_quote

BATCH: Final = 1_000
"""A batch of so many items is handed over, whatever else the read brought: with more of them alive at once the
interpreter's collector goes through all again and again, and takes longer than lists save."""


class QuoteStream(Reader[Quote | Gap]):
    """Quotes and gaps of some symbols, to be read with `async for`; made by `Bus.quotes`.

    Entries of one symbol come in the stream's order; between symbols they come as they were read, which while
    catching up is not by time. Leaving the loop (break, exception, cancellation) closes the connection; another
    `async for` over the same object goes on after the last item that was handed out.
    """

    def _steps(self) -> AsyncGenerator[Quote | Gap | None, None]:
        return self._items() if self._guard is None else self._guarded_items(self._guard)

    async def batches(self) -> AsyncGenerator[list[Quote | Gap], None]:
        """What one read brought, in lists that are never empty, up to some 2 000 items; else like the loop itself.

        For who works on many quotes at a time. `positions` are those behind the whole batch as soon as it is handed
        over: who saves them only when done with a batch gets it again after a crash.
        """
        turn = await self._enter()
        try:
            while not self._source.is_closed:
                runs = await self._source.next_runs()
                if self._guard is not None:
                    batch = self._guarded_batch(self._guard, runs)
                else:
                    batch = self._take_snapshots()
                    for run in runs:
                        self._take(run, batch)
                        if len(batch) >= BATCH:
                            yield batch
                            if turn != self._turn:
                                raise self._taken_over()
                            batch = []
                if batch:
                    yield batch
                    if turn != self._turn:
                        raise self._taken_over()
        finally:
            await self._leave(turn)

    def _take_snapshots(self) -> list[Quote | Gap]:
        batch: list[Quote | Gap] = []
        for track, quote in self._source.snapshots:
            if not track.dropped:
                track.move_to(str(quote.id))
                batch.append(quote)
        self._source.snapshots.clear()
        return batch

    def _take(self, run: Run, batch: list[Quote | Gap]) -> None:
        track, gap, entries, _ = run
        if track.dropped:
            return
        if gap is not None:
            run.pass_gap()
            batch.append(gap)
        if not entries:
            return
        symbol, append = track.symbol, batch.append
        for raw_id, fields in entries:
            entry_id = raw_id.decode()
            try:
                append(
                    decode_quote(symbol, entry_id, fields[1])
                    if fields[0] == QUOTE
                    else decode_entry(symbol, entry_id, fields)
                )
            except BadEntry as error:
                self._skipped(error)
        track.move_to(entry_id)
        # Three objects for the collector to look at each time, for each entry that is still here.
        entries.clear()

    async def _items(self) -> AsyncGenerator[Quote | Gap | None, None]:
        turn = await self._enter()
        source = self._source
        try:
            while not source.is_closed:
                runs = await source.next_runs()
                while source.snapshots:
                    track, quote = source.snapshots.pop(0)
                    if not track.dropped:
                        track.move_to(str(quote.id))
                        yield quote
                        if turn != self._turn:
                            raise self._taken_over()
                # The innermost lines of the library run once per quote, and so reach into the track themselves.
                for run in runs:
                    track, gap, entries, _ = run
                    symbol = track.symbol
                    if gap is not None and not track.dropped:
                        run.pass_gap()
                        yield gap
                        if turn != self._turn:
                            raise self._taken_over()
                    if entries:
                        track.anchor = Anchor.SEEN
                    for raw_id, fields in entries:
                        if track.dropped:
                            break
                        entry_id = raw_id.decode()
                        try:
                            item: Quote | Gap = (
                                decode_quote(symbol, entry_id, fields[1])
                                if fields[0] == QUOTE
                                else decode_entry(symbol, entry_id, fields)
                            )
                        except BadEntry as error:
                            track.after = entry_id
                            self._skipped(error)
                            continue
                        track.after = entry_id
                        yield item
                        if turn != self._turn:
                            raise self._taken_over()
                if not runs and source.is_due:
                    yield None
        finally:
            await self._leave(turn)

    async def _guarded_items(self, guard: AgeGuard) -> AsyncGenerator[Quote | Gap | None, None]:
        turn = await self._enter()
        source = self._source
        try:
            while not source.is_closed:
                runs = await source.next_runs()
                for track, after, item in self._pieces(runs):
                    # A strategy may take its time over the gap too, so the quote is judged again after it.
                    while is_fresh := self._is_fresh(guard, item):
                        if not guard.owes(track.symbol):
                            break
                        yield guard.settle(track.symbol)
                        if turn != self._turn:
                            raise self._taken_over()
                    if track.dropped:
                        continue
                    if not is_fresh and isinstance(item, Quote):
                        guard.withhold(item, track.after)
                        track.move_to(after)
                        continue
                    track.move_to(after)
                    yield item
                    if turn != self._turn:
                        raise self._taken_over()
                for symbol in self._due(guard, runs):
                    if guard.owes(symbol):
                        yield guard.settle(symbol)
                        if turn != self._turn:
                            raise self._taken_over()
                if not runs and source.is_due:
                    yield None
        finally:
            await self._leave(turn)

    def _guarded_batch(self, guard: AgeGuard, runs: list[Run]) -> list[Quote | Gap]:
        batch: list[Quote | Gap] = []
        for track, after, item in self._pieces(runs):
            if isinstance(item, Quote) and not self._is_fresh(guard, item):
                guard.withhold(item, track.after)
            else:
                if guard.owes(track.symbol):
                    batch.append(guard.settle(track.symbol))
                batch.append(item)
            track.move_to(after)
        batch += [guard.settle(symbol) for symbol in self._due(guard, runs)]
        return batch

    def _is_fresh(self, guard: AgeGuard, item: Quote | Gap) -> bool:
        return isinstance(item, Gap) or guard.is_fresh(item, self._source.now_ns())

    @staticmethod
    def _due(guard: AgeGuard, runs: list[Run]) -> list[str]:
        """Symbols of which nothing more is on its way: a gap is told now, and not only with the next quote."""
        more = {run.track.symbol for run in runs if run.track.look_now}
        return [symbol for symbol in guard.owing if symbol not in more]

    def _pieces(self, runs: list[Run]) -> Iterator[tuple[Track, str, Quote | Gap]]:
        """Each item with its track, and the position that handing it over leads to."""
        snapshots = self._source.snapshots
        while snapshots:
            track, quote = snapshots.pop(0)
            if not track.dropped:
                yield track, str(quote.id), quote
        for track, gap, entries, after in runs:
            if gap is not None and not track.dropped:
                yield track, after or track.after, gap
            for raw_id, fields in entries:
                if track.dropped:
                    break
                entry_id = raw_id.decode()
                try:
                    item = decode_entry(track.symbol, entry_id, fields)
                except BadEntry as error:
                    track.move_to(entry_id)
                    self._skipped(error)
                    continue
                yield track, entry_id, item
