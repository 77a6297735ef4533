"""One strategy that reads, as a process of its own: `python -m benchmarks.strategy KIND REDIS_URL`.

Decides how each way of reading is used at its best, and what it tells: one line of JSON at its end, after so many
quotes or, without a number, when the sentinel's quote came and nothing after it for a second. `digests` are per
symbol the number of entries, a hash over their ids in the order in which they came, and the first id, so that
whoever started it can compare them with the stream. Kinds: the library's `quotes`, `batches`, `newest` and its
synchronous twin `sync`; `hoard`, a worker that is there to be killed; `xread`, the loop that people write by hand
over redis-py with `json.loads`; `xread-msgspec`, the same with this project's own decoder.
"""

import argparse
import asyncio
import hashlib
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import Any, Final

import uvloop
from redis import Redis

from benchmarks.recording import SENTINEL, symbol_names
from consumers import Gap, Quote, connect
from consumers import sync as twin
from wire import Keyspace, decode_quote

KEYS: Final = Keyspace()
GO: Final = "READY"
GROUP: Final = "departures"


class Account:
    """What one strategy has read."""

    def __init__(self, wanted: int | None, *, keeps_ids: bool) -> None:
        self.wanted: Final = wanted
        self.is_over = False
        self.count = 0
        self.gaps = 0
        self.conflated = 0
        self.delays_ms: list[float] = []
        self._keeps_ids = keeps_ids
        self._digests: dict[str, Any] = {}
        self._counts: dict[str, int] = {}
        self._firsts: dict[str, str] = {}

    def take(self, quote: Quote) -> bool:
        """Count one; True when it was the last that is wanted."""
        self.count += 1
        if self._keeps_ids:
            now_ns = time.time_ns()
            received_ns = quote.received_ns
            if received_ns is not None:
                self.delays_ms.append((now_ns - received_ns) / 1e6)
            symbol, entry_id = quote.symbol, str(quote.id)
            if symbol not in self._digests:
                self._digests[symbol] = hashlib.blake2b(digest_size=8)
                self._firsts[symbol] = entry_id
            self._digests[symbol].update(entry_id.encode())
            self._counts[symbol] = self._counts.get(symbol, 0) + 1
        self.is_over |= quote.symbol == SENTINEL
        return self.wanted is not None and self.count + self.conflated >= self.wanted

    def tell(self) -> None:
        """The last line."""
        elapsed_s = time.perf_counter() - BEGIN_S[0]
        delays = sorted(self.delays_ms[len(self.delays_ms) // 6 :])
        print(
            json.dumps(
                {
                    "count": self.count,
                    "gaps": self.gaps,
                    "conflated": self.conflated,
                    "elapsed_s": elapsed_s,
                    "cpu_s": time.process_time() - BEGIN_S[1],
                    "median_ms": _quantile(delays, 0.5),
                    "p99_ms": _quantile(delays, 0.99),
                    "digests": {
                        symbol: [self._counts[symbol], digest.hexdigest(), self._firsts[symbol]]
                        for symbol, digest in self._digests.items()
                    },
                }
            ),
            flush=True,
        )


BEGIN_S: Final = [0.0, 0.0]
"""When reading began: wall and CPU."""


def ready() -> None:
    """Everything is imported, and begins now."""
    BEGIN_S[:] = time.perf_counter(), time.process_time()
    print(GO, flush=True)


async def quotes(url: str, symbols: list[str], start: str, account: Account) -> None:
    """One by one."""
    async with connect(url) as bus:
        ready()
        items = aiter(bus.quotes(*symbols, start=start))
        if account.wanted is None:
            items = _until_silence(items, account)
        async for item in items:
            if isinstance(item, Gap):
                account.gaps += 1
            elif account.take(item):
                return


async def _until_silence(
    items: AsyncIterator[Quote | Gap], account: Account
) -> AsyncGenerator[Quote | Gap, None]:
    while True:
        try:
            async with asyncio.timeout(1.0 if account.is_over else None):
                item = await anext(items)
        except TimeoutError:
            return
        yield item


async def batches(url: str, symbols: list[str], start: str, account: Account) -> None:
    """In lists."""
    async with connect(url) as bus:
        ready()
        async for batch in bus.quotes(*symbols, start=start).batches():
            for item in batch:
                if isinstance(item, Gap):
                    account.gaps += 1
                elif account.take(item):
                    return


async def newest(url: str, symbols: list[str], start: str, account: Account) -> None:
    """Latest-only."""
    async with connect(url) as bus:
        ready()
        async for item in bus.newest(*symbols, start=start):
            if isinstance(item, Gap):
                account.gaps += 1
                continue
            account.conflated += item.conflated
            if account.take(item.quote):
                return


async def hoard(url: str, symbols: list[str], start: str, account: Account) -> None:
    """A worker of a group that acknowledges nothing, and is ready when it has so many."""
    async with connect(url) as bus:
        async for delivery in bus.group(GROUP, *symbols, start=start, lease=False):
            if not isinstance(delivery.item, Gap) and account.take(delivery.item):
                ready()
                await asyncio.Event().wait()


def sync(url: str, symbols: list[str], start: str, account: Account) -> None:
    """The synchronous twin."""
    with twin.connect(url) as bus:
        ready()
        for item in bus.quotes(*symbols, start=start):
            if isinstance(item, Gap):
                account.gaps += 1
            elif account.take(item):
                return


def xread(url: str, symbols: list[str], start: str, account: Account) -> None:
    """As people write it: redis-py, and a dict per quote."""
    for _, entry_id, symbol, value in _entries(url, symbols, start):
        row = json.loads(value)
        quote = Quote(
            symbol, entry_id, row[0] or None, row[1], row[2], row[3] or None, row[4], row[5], row[6], row[7],
            row[8], row[9],
        )  # fmt: skip
        if account.take(quote):
            return


def xread_msgspec(url: str, symbols: list[str], start: str, account: Account) -> None:
    """The same with the decoder of `wire`."""
    for _, entry_id, symbol, value in _entries(url, symbols, start):
        if account.take(decode_quote(symbol, entry_id, value)):
            return


def _entries(url: str, symbols: list[str], start: str) -> Iterator[tuple[bytes, str, str, bytes]]:
    client: Any = Redis.from_url(url, protocol=2, socket_timeout=None)
    last: dict[bytes, str] = {KEYS.stream(s).encode(): "0-0" if start == "earliest" else "$" for s in symbols}
    names = {stream: KEYS.symbol_of(stream.decode()) for stream in last}
    if start != "earliest":
        for stream in last:
            found = client.xrevrange(stream, count=1)
            last[stream] = found[0][0].decode() if found else "0-0"
    ready()
    while True:
        for stream, entries in client.xread(last, count=1_000, block=500) or ():
            for raw_id, fields in entries:
                entry_id = raw_id.decode()
                last[stream] = entry_id
                if b"q" in fields:
                    yield stream, entry_id, names[stream], fields[b"q"]


ASYNC_KINDS: Final[dict[str, Callable[[str, list[str], str, Account], Any]]] = {
    "quotes": quotes,
    "batches": batches,
    "newest": newest,
    "hoard": hoard,
}
SYNC_KINDS: Final[dict[str, Callable[[str, list[str], str, Account], None]]] = {
    "sync": sync,
    "xread": xread,
    "xread-msgspec": xread_msgspec,
}


def _quantile(ordered: list[float], share: float) -> float | None:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))] if ordered else None


def main() -> None:
    """The process."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.strategy", description=__doc__)
    parser.add_argument("kind", choices=[*ASYNC_KINDS, *SYNC_KINDS])
    parser.add_argument("redis_url")
    parser.add_argument("--symbols", type=int, default=100)
    parser.add_argument("--start", default="now", choices=["now", "snapshot", "earliest"])
    parser.add_argument("--count", type=int, help="end after so many quotes")
    parser.add_argument("--ids", action="store_true", help="keep ids and delays of all, to be compared")
    options = parser.parse_args()
    names = [*symbol_names(options.symbols), SENTINEL]
    account = Account(options.count, keeps_ids=options.ids)
    arguments = (options.redis_url, names, options.start, account)
    if options.kind in ASYNC_KINDS:
        uvloop.run(ASYNC_KINDS[options.kind](*arguments))
    else:
        SYNC_KINDS[options.kind](*arguments)
    account.tell()


if __name__ == "__main__":
    main()
