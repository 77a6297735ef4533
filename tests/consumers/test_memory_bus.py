"""The bus in memory, as a strategy's test uses it."""

import asyncio
import logging
import subprocess
import sys
import threading
from typing import Any

import pytest

from consumers import BadUrl, Bus, BusUnavailable, Gap, Quote, Reconnect, connect, sync
from consumers.testing import MemoryBus, a_gap, a_quote, memory_bus, quotes_of
from tests.consumers.conftest import take


async def collect(bus: Bus, seen: list[Quote | Gap]) -> None:
    """A strategy that remembers."""
    async for item in bus.quotes("AAPL", "MSFT"):
        await asyncio.sleep(0.002)
        seen.append(item)


async def test_a_strategy_has_seen_all_when_it_has_caught_up() -> None:
    """No test has to sleep: waiting for the strategy means that it is done with every item."""
    seen: list[Quote | Gap] = []
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(collect(bus, seen))
        await bus.caught_up()
        for round_ in range(1, 4):
            await bus.publish(a_quote("AAPL"), *quotes_of("MSFT", count=8), a_gap("AAPL"))
            await bus.caught_up()
            assert len(seen) == 10 * round_
        running.cancel()


async def test_a_strategy_that_does_not_come_back_is_told_of() -> None:
    """One that hangs on an item, and one that is not there at all."""
    async with memory_bus() as bus:
        with pytest.raises(TimeoutError, match="0 of 1 readers"):
            await bus.caught_up(timeout_s=0.05)
        items = aiter(bus.quotes("AAPL", start="earliest"))
        await bus.publish(a_quote("AAPL"))
        await take(items, 1)
        reading = asyncio.create_task(take(items, 1))  # noqa: TID251
        await bus.caught_up()
        await bus.publish(a_quote("AAPL"))
        await reading
        with pytest.raises(TimeoutError, match="does each loop come back"):
            await bus.caught_up(timeout_s=0.1)


async def test_code_that_connects_by_itself_finds_it_by_its_url() -> None:
    """Until it is closed; then the URL leads nowhere, and an open bus hears that the server is gone."""
    async with memory_bus() as memory:
        await memory.publish(a_quote("AAPL", bid=1.0, ask=2.0))
        async with connect(memory.url) as other:
            assert await other.latest("AAPL") == await memory.latest("AAPL")
            await memory.aclose()
            with pytest.raises(BusUnavailable):
                await other.latest("AAPL")
    with pytest.raises(BadUrl):
        connect(memory.url)


async def test_two_buses_share_nothing() -> None:
    """Each has a server of its own."""
    async with memory_bus() as one, memory_bus() as two:
        await one.publish(a_quote("AAPL"))
        assert await two.latest("AAPL") is None


async def test_an_outage_is_survived_as_in_production(caplog: pytest.LogCaptureFixture) -> None:
    """Readers wait, return, and go on where they were; without attempts they end with the reason."""
    seen: list[Quote | Gap] = []
    caplog.set_level("INFO")
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(collect(bus, seen))
        await bus.caught_up()
        bus.server.go_away()
        with pytest.raises(BusUnavailable):
            await bus.latest("AAPL")
        async with asyncio.timeout(5):
            while "attempt 2" not in caplog.text:  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        bus.server.come_back()
        await bus.publish(a_quote("AAPL"))
        await bus.caught_up()
        assert len(seen) == 1
        running.cancel()
    async with memory_bus(reconnect=Reconnect(attempts=0)) as bus:
        reading = asyncio.create_task(take(aiter(bus.quotes("AAPL")), 1))  # noqa: TID251
        await bus.caught_up()
        bus.server.go_away()
        with pytest.raises(BusUnavailable):
            await reading


def test_it_serves_one_event_loop_after_the_other() -> None:
    """Plain tests may run one `asyncio.run` to publish and another to look."""
    bus = memory_bus()
    asyncio.run(_publish(bus))
    assert asyncio.run(_latest(bus)) is not None
    bus.close()


async def _publish(bus: MemoryBus) -> None:
    await bus.publish(a_quote("AAPL"))


async def _latest(bus: Bus) -> Quote | None:
    return await bus.latest("AAPL")


async def test_another_thread_may_read_it() -> None:
    """A reader in an event loop of its own is woken by a quote from here."""
    found: list[Any] = []

    async def read(url: str) -> None:
        async with connect(url) as bus:
            found.extend(await take(aiter(bus.quotes("AAPL")), 1))

    async with memory_bus() as bus:
        thread = threading.Thread(target=lambda: asyncio.run(read(bus.url)))
        thread.start()
        await bus.caught_up()
        stored = await bus.publish(a_quote("AAPL"))
        await asyncio.to_thread(thread.join, 10)
        assert found == stored


def test_what_tests_need_is_not_imported_with_the_rest() -> None:
    """The builders need no fakeredis; the bus in memory does, and says so."""
    program = (
        "import sys; sys.modules['fakeredis'] = None\n"
        "from consumers.testing import a_quote, memory_bus\n"
        "a_quote()\n"
        "assert not {'pytest', 'simulator', 'ingestor'} & set(sys.modules)\n"
        "memory_bus()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=False
    )
    assert 'pip install "quotebus[testing]"' in done.stderr.splitlines()[-1]


async def test_a_group_and_the_plain_twin_work_on_it_too() -> None:
    """A member that waits has caught up; a bus without `await` finds the server by its URL."""
    async with memory_bus() as bus:
        # A group without any stream to wait at looks again and again, and never waits.
        await bus.publish(a_quote("AAPL"))
        worker = bus.group("workers", "AAPL")

        async def work() -> str | None:
            async for delivery in worker:
                await worker.ack(delivery)
                return delivery.id
            raise AssertionError("it ended")

        def ask() -> Quote | None:
            with sync.connect(bus.url) as plain:
                return plain.latest("AAPL")

        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(work())
            await bus.caught_up()
            (stored,) = await bus.publish(a_quote("AAPL"))
        assert working.result() == stored.id
        assert await asyncio.to_thread(ask) == stored


@pytest.mark.fault("Q24")
async def test_the_recipe_for_trimmed_needs_no_sleep() -> None:
    """A strategy that waits, and that has never had a quote, is told how many went before it looked."""
    seen: list[Quote | Gap] = []
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:
        running = tasks.create_task(collect(bus, seen))
        await bus.caught_up()
        for keep in (1, 2):
            await bus.publish(*quotes_of("AAPL", count=5))
            await bus.publisher.trim("AAPL", keep=keep)
            await bus.caught_up()
            gap, *quotes = seen
            assert isinstance(gap, Gap)
            assert (gap.reason, gap.missing, len(quotes)) == ("trimmed", 5 - keep, keep)
            seen.clear()
        running.cancel()


@pytest.mark.fault("Q23")
async def test_errors_of_a_bus_in_memory_blame_no_server() -> None:
    """Neither one that was told to go away, nor a command that it does not have."""
    async with memory_bus() as bus:
        bus.server.go_away()
        with pytest.raises(BusUnavailable, match=r"bus in memory .*told to go away") as away:
            await bus.latest("AAPL")
        bus.server.come_back()
        with pytest.raises(BusUnavailable, match=r"bus in memory .*known limits") as lacking:
            await bus._shared.ask(("LOLWUT", "VERSION", "5", "NO", "SUCH"))
    for error in (away, lacking):
        assert "Redis at" not in str(error.value)
        assert "is the server running" not in str(error.value)


async def test_the_log_of_a_bus_in_memory_blames_no_server(caplog: pytest.LogCaptureFixture) -> None:
    """Whoever reads while it is away: loops, newest quotes, workers, short questions; and when it is back."""
    caplog.set_level(logging.DEBUG, "consumers")
    async with memory_bus() as bus, asyncio.TaskGroup() as tasks:

        async def read(stream: Any) -> None:
            async for _ in stream:
                pass

        streams = (bus.quotes("AAPL"), bus.newest("AAPL"), bus.group("g", "AAPL", start="earliest"))
        await bus.publish(a_quote("AAPL"))
        running = [tasks.create_task(read(stream)) for stream in streams]
        await bus.caught_up(readers=3)
        bus.server.go_away()
        with pytest.raises(BusUnavailable):
            await bus.latest("AAPL")
        async with asyncio.timeout(30):
            while not all(stream.failures for stream in streams):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
        bus.server.come_back()
        await bus.publish(a_quote("AAPL"))
        await bus.caught_up(readers=3)
        for task in running:
            task.cancel()
    told = [record.getMessage() for record in caplog.records]
    assert sum("the bus in memory (memory://" in text and "failed" in text for text in told) >= 3
    assert sum("is back after" in text for text in told) >= 3
    assert [text for text in told if "Redis" in text or "server running" in text] == []
