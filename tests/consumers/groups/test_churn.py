"""Workers that come, go, hesitate and are cut off: in the end everything has been handled."""

import asyncio
import contextlib
import random
import time
from collections import Counter

import pytest
from redis.asyncio import Redis

from consumers import Bus, Delivery, Gap, GroupStream, connect
from consumers.link import CLIENT_NAME
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, Writer, until
from tests.consumers.groups.test_work import pending

SYMBOLS = ("S0", "S1", "S2", "S3", "S4")
CLAIM_AFTER_S = 0.4


class Crew:
    """Three workers of one group with every bad habit, until `is_calm`."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.handled: Counter[tuple[str, object]] = Counter()
        self.late: list[tuple[GroupStream, Delivery]] = []
        self.is_calm = False

    async def work(self, bus: Bus, consumer: str | None) -> None:
        """One worker; that with a name acknowledges by itself."""
        auto = consumer is not None
        stream = bus.group(
            "g",
            *SYMBOLS,
            consumer=consumer,
            start="earliest",
            claim_after_s=CLAIM_AFTER_S,
            auto_ack=auto,
            prefetch=50,
        )
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(
                    None if self.is_calm else self.chance.random() * 2 * CLAIM_AFTER_S
                ):
                    async for delivery in stream:
                        assert not isinstance(delivery.item, Gap)
                        if not await self.handle(stream, delivery, auto=auto):
                            break

    async def handle(self, stream: GroupStream, delivery: Delivery, *, auto: bool) -> bool:
        """Handle one, at once, late, or not at all; returns whether the loop goes on."""
        draw = 1.0 if self.is_calm else self.chance.random()
        if draw < 0.01:
            await asyncio.sleep(1.2 * CLAIM_AFTER_S)
        if draw < 0.005 and not auto:
            return True
        self.handled[delivery.symbol, delivery.item.bid_size] += 1  # type: ignore[union-attr]
        if draw < 0.02:
            self.late.append((stream, delivery))
        elif not auto:
            await stream.ack(delivery)
        return draw < 0.97 or self.is_calm

    async def acknowledge_late(self) -> None:
        """What somebody was done with long after it was claimed by another."""
        while True:
            await asyncio.sleep(1.5 * CLAIM_AFTER_S)
            late, self.late = self.late, []
            for stream, delivery in late:
                await stream.ack(delivery)


@pytest.mark.parametrize("seed", range(3))
async def test_after_the_churn_everything_has_been_handled(
    server: RedisServer, redis: Redis, writer: Writer, seed: int
) -> None:
    """Cancelled, cut off, too slow, acknowledged late or never: each entry is handled soon after that ends."""
    crew = Crew(seed)
    for symbol in SYMBOLS:
        await writer.quotes(symbol)

    async def all_handled() -> bool:
        await asyncio.sleep(0.05)
        left = [await pending(redis, symbol) for symbol in SYMBOLS]
        return sum(map(len, writer.sent.values())) == len(crew.handled) and not any(left)

    async with contextlib.AsyncExitStack() as stack, asyncio.TaskGroup() as tasks:
        running = []
        for consumer in ("fixed", None, None):
            bus = await stack.enter_async_context(connect(server.url, reconnect=FAST))
            running.append(tasks.create_task(crew.work(bus, consumer)))
        running.append(tasks.create_task(crew.acknowledge_late()))
        for number in range(150):
            await writer.quotes(crew.chance.choice(SYMBOLS), crew.chance.randint(1, 30))
            await asyncio.sleep(0.01)
            if number % 50 == 49:
                for client in await redis.client_list():
                    if client["name"].startswith(CLIENT_NAME):
                        await redis.client_kill_filter(_id=client["id"])
        crew.is_calm = True
        began_s = time.monotonic()
        await until(all_handled, 60)
        # Twice `claim_after_s` and some rounds, and not by the grace of a limit far away.
        assert time.monotonic() - began_s < 60 * CLAIM_AFTER_S
        for task in running:
            task.cancel()
