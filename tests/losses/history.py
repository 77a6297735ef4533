"""One history: a writer, a hand that spoils the streams, and a reader that is now quick, now slow, all from a seed.

Decides what is done in which order. Must never judge it (`reader` does). The hand strikes at any moment, also
between an answer and the next question; what it takes is taken, so only what the reader says of it can be wrong.
"""

import asyncio
import contextlib
import random
from dataclasses import dataclass, field
from typing import Any, Final

from redis.asyncio import Redis

from consumers import Bus, QuoteStream, Reconnect, connect
from consumers.link import CLIENT_NAME
from tests.losses.reader import Account, Balance, balance
from wire import GAP_FIELD, QUOTE_FIELD, ZERO_ID, Keyspace, encode_gap, encode_quote, place

SYMBOLS: Final = ("A", "B")
PATIENCE_S: Final = 30.0
T0_NS: Final = 1_763_000_000_000_000_000
STEP_NS: Final = 1_000_003
LOOKS: Final = 2
"""The first look that comes may have been asked for before, the second was not."""
DEEDS: Final = {
    "write": 40,
    "trim": 8,
    "trim to nothing": 4,
    "delete entries": 6,
    "delete the stream": 3,
    "rename away and back": 3,
    "rename another here": 2,
    "forget": 3,
    "cut": 4,
    "wait": 20,
    "wait long": 2,
}
ALWAYS: Final = ("write", "wait", "wait long")
KINDS: Final = tuple(deed for deed in DEEDS if deed not in ALWAYS)
DAMAGE: Final = sum(DEEDS[kind] for kind in KINDS)


@dataclass
class History:
    """The deeds of one seed on keys of its own."""

    seed: int
    redis: Redis
    url: str
    deeds: int = 60
    kinds: tuple[str, ...] = KINDS
    """Which kinds of damage; writing and waiting are in each."""
    log: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.keys = Keyspace(f"losses-{self.seed}")
        self.written: dict[str, dict[int, int]] = {symbol: {} for symbol in SYMBOLS}
        self.interim: dict[str, set[int]] = {symbol: set() for symbol in SYMBOLS}
        self.account = Account()
        self._stream: QuoteStream | None = None
        self._last = dict.fromkeys(SYMBOLS, ZERO_ID)
        self._time_ns = T0_NS
        self._nap_s = 0.0
        # Not the one of the deeds: how often it is asked depends on the machine.
        self._naps = random.Random(-1 - self.seed)
        self._go_on = asyncio.Event()
        self._go_on.set()
        self._is_held = False

    async def run(self) -> Balance:
        """Live it, and say what became of each number."""
        policy = Reconnect(first_delay_s=0.01, max_delay_s=0.05)
        name = f"losses-{self.seed}"
        async with connect(self.url, namespace=self.keys.namespace, reconnect=policy, name=name) as bus:
            for symbol in SYMBOLS:
                await self._write(symbol, 1)
                await self._age(self.keys.stream(symbol))
            reading = asyncio.get_running_loop().create_task(self._read(bus))
            await self._until_read()
            weights: dict[str, float] = {deed: DEEDS[deed] for deed in ALWAYS}
            # One kind alone strikes as often as all together would.
            share = DAMAGE / sum(DEEDS[kind] for kind in self.kinds)
            weights |= {kind: DEEDS[kind] * share for kind in self.kinds}
            for _ in range(self.deeds):
                symbol = self.random.choice(SYMBOLS)
                (deed,) = self.random.choices(list(weights), list(weights.values()))
                self.log.append(f"{symbol} {deed}")
                if deed not in ALWAYS and self.random.random() < 0.3:
                    await self._do_behind(deed, symbol)
                else:
                    await self._do(deed, symbol)
            # The end: all is quick again, and each stream gets more entries. A reader that has got one written
            # after a look has got all that the look told.
            self._nap_s = 0.0
            for _ in range(2):
                await self._until_looked()
                for symbol in SYMBOLS:
                    await self._write(symbol, 1)
                await self._until_read()
            reading.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await reading
        await self.redis.delete(*[self.keys.stream(symbol) for symbol in SYMBOLS])
        balances = [
            balance(symbol, self.written[symbol], self.interim[symbol], self.account.got.get(symbol, []))
            for symbol in SYMBOLS
        ]
        return sum(balances, Balance())

    async def _read(self, bus: Bus) -> None:
        now_s = asyncio.get_running_loop().time
        self._stream = bus.quotes(*SYMBOLS, start="earliest", lease=False)
        async for item in self._stream:
            self.account.take(item, now_s())
            if self._nap_s and self._naps.random() < 0.3:
                await asyncio.sleep(self._nap_s)
            self._is_held = not self._go_on.is_set()
            await self._go_on.wait()
            self._is_held = False

    async def _until_read(self) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while any(self.account.last(symbol) < max(self.written[symbol]) for symbol in SYMBOLS):  # noqa: ASYNC110
                await asyncio.sleep(0.01)

    async def _do_behind(self, deed: str, symbol: str) -> None:
        """While the reader is held and does not ask, so that it must miss what was written and is taken."""
        self._go_on.clear()
        try:
            await self._write(symbol, 1)
            async with asyncio.timeout(PATIENCE_S):
                while not self._is_held:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            await self._write(symbol, self.random.choice([2, 5, 30]))
            await self._do(deed, symbol)
        finally:
            self._go_on.set()

    async def _until_looked(self) -> None:
        """Until the reader has compared each stream with what it knew, in a question that was asked after this."""
        async with asyncio.timeout(PATIENCE_S):
            for _ in range(LOOKS):
                since_s = asyncio.get_running_loop().time()
                while min(self._looked_at_s()) <= since_s:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)

    def _looked_at_s(self) -> list[float]:
        assert self._stream is not None
        tracks = [self._stream._source.pursuit.track(symbol) for symbol in SYMBOLS]
        return [0.0 if track is None else track.looked_at for track in tracks]

    async def _do(self, deed: str, symbol: str) -> None:
        key, chance = self.keys.stream(symbol), self.random
        match deed:
            case "write":
                await self._write(
                    symbol, chance.choice([1, 1, 2, 5, 30, 1200 if chance.random() < 0.1 else 3])
                )
            case "trim":
                await self.redis.xtrim(key, maxlen=chance.choice([1, 2, 5, 50]), approximate=False)
            case "trim to nothing":
                await self.redis.xtrim(key, maxlen=0, approximate=False)
            case "delete entries":
                found: Any = await self.redis.xrevrange(key, count=chance.choice([1, 3, 10]))
                some = [entry_id for entry_id, _ in found if chance.random() < 0.6]
                if some:
                    await self.redis.xdel(key, *some)
            case "delete the stream":
                await self.redis.delete(key)
            case "rename away and back":
                await self._rename_away_and_back(symbol)
            case "rename another here":
                other = f"{self.keys.namespace}:other"
                await self.redis.delete(other)
                for _ in range(3):
                    await self._write(symbol, 1, key=other)
                await self._age(other)
                await self.redis.rename(other, key)
            case "forget":
                await self._forget(symbol)
            case "cut":
                await self._cut()
            case "wait":
                self._nap_s = chance.choice([0.0, 0.0, 0.002, 0.02])
                await asyncio.sleep(chance.choice([0.0, 0.001, 0.01, 0.05]))
            case "wait long":
                self._nap_s = chance.choice([0.0, 0.4])
                await asyncio.sleep(chance.choice([0.3, 1.2]))

    async def _write(self, symbol: str, count: int, *, key: str | None = None) -> None:
        pipe = self.redis.pipeline(transaction=True)
        for _ in range(count):
            number = len(self.written[symbol])
            self._time_ns += STEP_NS
            entry_id, _ = place(self._time_ns, self._last[symbol], self._time_ns)
            row = (187.12, number, "V", 187.13, 200, "N", ["R"], "C", self._time_ns, 8052)
            pipe.xadd(key or self.keys.stream(symbol), {QUOTE_FIELD: encode_quote(row)}, str(entry_id))
            self._last[symbol] = entry_id
            self.log.append(f"{symbol} {number}")
            self.written[symbol][number] = self._time_ns
        await pipe.execute()

    async def _age(self, key: str) -> None:
        """Let a stream count as many entries as one that was long in use, so that no two count alike by chance."""
        newest: Any = await self.redis.xrevrange(key, count=1)
        await self.redis.execute_command(  # type: ignore[no-untyped-call]
            "XSETID",
            key,
            newest[0][0],
            "ENTRIESADDED",
            self.random.randrange(10_000, 10_000_000),
            "MAXDELETEDID",
            "0-0",
        )

    async def _rename_away_and_back(self, symbol: str) -> None:
        key, away = self.keys.stream(symbol), f"{self.keys.namespace}:away"
        if not await self.redis.exists(key):
            return
        await self.redis.rename(key, away)
        if self.random.random() < 0.5:
            first = len(self.written[symbol])
            await self._write(symbol, 2)
            self.interim[symbol] |= {first, first + 1}
            await asyncio.sleep(self.random.choice([0.0, 0.05]))
        await self.redis.rename(away, key)

    async def _forget(self, symbol: str) -> None:
        """As by a failover to a replica that lags: the last entries are gone, and connections are cut.

        The daemon leaves its marker where the loss begins, which tells whoever stands before it.
        """
        key = self.keys.stream(symbol)
        earlier: Any = await self.redis.dump(key)
        if earlier is None:
            return
        last, lost_from_ns = self._last[symbol], self._time_ns
        await self._write(symbol, self.random.choice([1, 5, 40]))
        await asyncio.sleep(self.random.choice([0.0, 0.002, 0.05]))
        marker = encode_gap(lost_from_ns, self._time_ns, "redis_lost", 7)
        pipe = self.redis.pipeline(transaction=True)
        pipe.restore(key, 0, earlier, replace=True)
        pipe.xadd(key, {GAP_FIELD: marker}, str(last.successor()))
        await pipe.execute()
        await self._cut()
        await self._write(symbol, self.random.choice([1, 3]))

    async def _cut(self) -> None:
        for client in await self.redis.client_list():
            if client["name"] == f"{CLIENT_NAME}:losses-{self.seed}":
                with contextlib.suppress(Exception):
                    await self.redis.client_kill_filter(_id=client["id"])
