"""One life of the library from a seed, on either server: streams, newest quotes, groups, leases, trims and markers.

Decides what is done, and what of each answer may be compared. Must never know which server it runs on. Every
reader is asked until it has nothing more, so that no answer depends on who was quicker.
"""

import asyncio
import random
from typing import Any, Final

from redis.asyncio import Redis

from consumers import Bus, BusError, Delivery, Gap, Newest, Quote
from consumers.testing import Publisher, a_gap, a_quote
from tests.twins.clock import step
from wire import Keyspace

SYMBOLS: Final = ("AAPL", "MSFT")
T0_NS: Final = 1_763_000_000_000_000_000
EMPTY_READS: Final = 3
"""So many reads in a row that bring nothing: a look that changes what is asked next is one of them."""
EMPTY_STEPS: Final = 8
"""The same of a worker: it also goes through what it was given before, looks for what to claim, and fetches it."""
DEEDS: Final = {
    "publish": 30,
    "marker": 8,
    "trim": 8,
    "remove": 2,
    "read": 20,
    "leave and resume": 4,
    "newest": 14,
    "work": 20,
    "restart a worker": 4,
    "ask": 10,
    "lag": 6,
    "lag of a group": 6,
    "interest": 5,
    "spoil and mend": 1,
}
PAUSES_S: Final = (0.004, 0.004, 0.03, 0.3, 0.3, 1.3, 6.7)
"""How long nothing is done before a deed, by the clock of the loop: shorter and longer than whatever the library
waits for (10 ms, 0.25 s, 1 s, 5 s), and equal to none of these. See also the limit "half a millisecond"."""


class Life:
    """What happens on one server, and what was seen of it."""

    def __init__(self, seed: int, bus: Bus, publisher: Publisher, redis: Redis) -> None:
        self._seed: Final = seed
        self._random: Final = random.Random(seed)
        self._pauses: Final = random.Random(-1 - seed)
        self._bus: Final = bus
        self._publisher: Final = publisher
        self._redis: Final = redis
        self._keys: Final = Keyspace()
        self._time_ns = T0_NS
        self._number = 0
        self._is_whole = True
        start = self._random.choice(["now", "earliest", "snapshot"])
        self._stream = bus.quotes(*SYMBOLS, start=start)
        self._newest: Final = bus.newest(*SYMBOLS, start=start)
        self._workers: Final = {name: self._worker(name) for name in ("a", "b")}
        self._unacknowledged: Final[dict[str, list[Delivery]]] = {"a": [], "b": []}

    async def live(self, count: int) -> list[tuple[str, Any]]:
        """So many deeds, each with what was seen."""
        seen = []
        for _ in range(count):
            step(self._pauses.choice(PAUSES_S))
            await self._leases_are_kept()
            (deed,) = self._random.choices(list(DEEDS), list(DEEDS.values()))
            try:
                found = await self._do(deed)
            except BusError as error:
                found = type(error).__name__
            seen.append((deed, found))
        await self._stream.aclose()
        await self._newest.aclose()
        for worker in self._workers.values():
            await worker.aclose()
        return seen

    async def _leases_are_kept(self) -> None:
        """Nobody waits for the task that does it, and a server in memory lets it have no turn by itself."""
        now_s = asyncio.get_running_loop().time
        while self._bus._leases._book.wait_s(now_s()) == 0:  # noqa: ASYNC110 - time stands still
            await asyncio.sleep(0)

    def _worker(self, name: str) -> Any:
        # Longer than the life: who claims what is a matter of time, and of chance among workers.
        worker = self._bus.group("g", *SYMBOLS, consumer=name, start="earliest", claim_after_s=600.0)
        # When its rounds are due is drawn by chance, and shall be the same in both worlds.
        self._number += 1
        worker._share.membership._looks._chance = random.Random(f"{self._seed} {self._number}").random
        return worker

    async def _do(self, deed: str) -> Any:
        chance = self._random
        symbol = chance.choice(SYMBOLS)
        match deed:
            case "publish":
                some = [self._quote(chance.choice(SYMBOLS)) for _ in range(chance.choice([1, 1, 2, 5, 40]))]
                return [plain(item) for item in await self._publisher.publish(*some)]
            case "marker":
                self._time_ns += 1_000_000
                began, ended = self._time_ns - 1_000_000, self._time_ns
                gap = a_gap(symbol, reason="feed_disconnected", start=began, end=ended)
                return [plain(item) for item in await self._publisher.publish(gap)]
            case "trim":
                self._is_whole = False
                return await self._publisher.trim(symbol, keep=chance.choice([0, 1, 3, 10]))
            case "remove":
                self._is_whole = False
                return await self._publisher.remove_stream(symbol, cache=chance.random() < 0.5)
            case "read":
                return await self._drained(self._stream)
            case "leave and resume":
                positions = self._stream.positions
                await self._stream.aclose()
                self._stream = self._bus.quotes(*SYMBOLS, start=positions)
                return positions
            case "newest":
                return await self._drained(self._newest)
            case "work":
                return await self._work(chance.choice(["a", "b"]))
            case "restart a worker":
                name = chance.choice(["a", "b"])
                await self._workers[name].aclose()
                self._unacknowledged[name].clear()
                self._workers[name] = self._worker(name)
                return None
            case "ask":
                found = await self._bus.latest_many(*SYMBOLS)
                past = [plain(item) async for item in self._bus.history(symbol, T0_NS, self._time_ns)]
                return [plain(quote) for quote in found.values()], past
            case "lag":
                return await self._stream.lag()
            case "lag of a group":
                held = await self._workers["a"].lag()
                behind = {key: (its.entries, its.is_exact) for key, its in held.items()}
                if not self._is_whole:  # See the limit "deleted and pending".
                    return behind
                members = {key: sorted((m.name, m.pending) for m in its.members) for key, its in held.items()}
                return behind, {key: its.pending for key, its in held.items()}, members
            case "interest":
                async with self._bus.interest(symbol, "GME") as wanted:
                    leases: Any = await self._redis.zrange(self._keys.interest, 0, -1)
                return wanted.trouble, sorted(name.split(b"@")[0] for name in leases)
            case "spoil and mend":
                await self._redis.set(self._keys.stream("SPOILT"), "x")
                return [item async for item in self._bus.history("SPOILT", T0_NS, self._time_ns)]
        raise AssertionError(deed)

    async def _work(self, name: str) -> Any:
        worker = self._workers[name]
        seen, empty = [], 0
        while empty < EMPTY_STEPS:
            delivery = await worker.get(timeout_s=0)
            if delivery is None:
                empty += 1
                continue
            empty = 0
            seen.append((delivery.id, plain(delivery.item), delivery.times_delivered, delivery.is_claimed))
            self._unacknowledged[name].append(delivery)
            # By the entry and not by chance, so that a gap more does not change what is done next.
            if delivery.id is not None and sum(delivery.id.encode()) % 3:
                await worker.ack(*self._unacknowledged[name])
                self._unacknowledged[name].clear()
        return sorted(seen, key=str)

    async def _drained(self, stream: Any) -> list[Any]:
        """All that there is for now, by symbol: between symbols there is no order."""
        seen, empty = [], 0
        while empty < EMPTY_READS:
            item = await stream.get(timeout_s=0)
            if item is None:
                empty += 1
                continue
            empty = 0
            seen.append(item)
        return sorted((plain(item) for item in seen), key=lambda item: str(item[0]))

    def _quote(self, symbol: str) -> Quote:
        self._number += 1
        self._time_ns += self._random.choice([0, 1_000, 1_000_000, 40_000_000])
        return a_quote(symbol, bid_size=self._number, at=self._time_ns, delay_ms=8.0)


def plain(item: Any) -> tuple[Any, ...]:
    """What must be the same on both servers."""
    if isinstance(item, Newest):
        return (*plain(item.quote), item.conflated, item.from_ns, item.to_ns)
    if isinstance(item, Gap):
        return item.symbol, item.id, item.reason, item.from_ns, item.to_ns, item.missing
    return item.symbol, item.id, item.bid_size, item.time_ns
