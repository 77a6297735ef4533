"""Every quote, handed over one by one or in batches.

Decides when a position moves: with the item that is handed over, never before. Must never hold entries back: what a
read brought is handed out before the next one is asked for, so memory stays that of one reply.
"""

from collections.abc import AsyncGenerator, AsyncIterator

from consumers.reading.entry import QUOTE, decode_entry
from consumers.reading.gaps import Anchor
from consumers.reading.pursuit import Run
from consumers.reading.reader import Reader
from wire import BadEntry, Gap, Quote, decode_quote


class QuoteStream(Reader):
    """Quotes and gaps of some symbols, to be read with `async for`; made by `Bus.quotes`.

    Entries of one symbol come in the stream's order; between symbols they come as they were read, which while
    catching up is not by time. Leaving the loop (break, exception, cancellation) closes the connection; another
    `async for` over the same object goes on after the last item that was handed out.
    """

    def __aiter__(self) -> AsyncIterator[Quote | Gap]:
        # A generator and not __anext__: Python closes a generator that a loop has left, and nothing else.
        return self._items()

    async def batches(self) -> AsyncGenerator[list[Quote | Gap], None]:
        """All that one read brought, as a list that is never empty, up to 20 000 items; else like the loop itself.

        For who works on many quotes at a time. `positions` are those behind the whole batch as soon as it is handed
        over: who saves them only when done with a batch gets it again after a crash.
        """
        turn = await self._enter()
        try:
            while not self._source.is_closed:
                runs = await self._source.next_runs()
                batch = self._take_snapshots()
                for run in runs:
                    self._take(run, batch)
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
                track.after = str(quote.id)
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
        track.anchor, track.after = Anchor.SEEN, entry_id

    async def _items(self) -> AsyncGenerator[Quote | Gap, None]:
        turn = await self._enter()
        source = self._source
        try:
            while not source.is_closed:
                runs = await source.next_runs()
                while source.snapshots:
                    track, quote = source.snapshots.pop(0)
                    if not track.dropped:
                        track.after = str(quote.id)
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
        finally:
            await self._leave(turn)
