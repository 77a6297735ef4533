"""A group whose streams, entries or server go away: what its workers do, and what they tell."""

import asyncio
import contextlib
from typing import Any

import pytest
from redis.asyncio import Redis

from consumers import Bus, BusError, BusUnavailable, Delivery, EntryId, Gap, connect
from consumers.groups.looks import REWIND_HOLDS_S
from consumers.groups.record import TAG
from consumers.groups.worker import RELEASED_IDLE_MS
from consumers.shared_link import SharedLink
from simulator.redis_server import RedisServer
from tests.consumers.conftest import FAST, KEYS, Writer, blocked, until
from tests.consumers.groups.test_work import deliver, has_group, numbers, pending

STREAM = KEYS.stream("AAPL")


def gaps(found: list[Delivery]) -> list[Gap]:
    """The gaps among these."""
    return [d.item for d in found if isinstance(d.item, Gap)]


async def test_a_destroyed_group_is_made_anew_and_nothing_is_skipped(bus: Bus, writer: Writer) -> None:
    """What was pending when somebody destroyed it comes again, and then what nobody has had."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3, prefetch=5)
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        async for delivery in stream:
            found.append(delivery)
            if len(found) <= 3:
                await stream.ack(delivery)
            if len(found) == 7:
                await writer.raw("XGROUP", "DESTROY", STREAM, "g")
                await writer.quotes("AAPL", 2)
            if delivery.id == writer.ids["AAPL"][-1] and len(found) > 7:
                break
    assert numbers(found[:7]) == [0, 1, 2, 3, 4, 5, 6]
    assert gaps(found) == []
    assert set(numbers(found[7:])) >= set(range(3, 12))


async def test_a_destroyed_group_wakes_a_worker_that_waits(bus: Bus, writer: Writer, redis: Redis) -> None:
    """NOGROUP is no reason to stop, and what was acknowledged before the last look does not come again."""
    await writer.quotes("AAPL", 3)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    await deliver(stream, 3)
    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(deliver(stream, 2))
        await blocked(redis)
        await asyncio.sleep(0.7)  # at least one look at the group with everything acknowledged
        await writer.raw("XGROUP", "DESTROY", STREAM, "g")
        await until(lambda: has_group(redis, "AAPL"))
        await writer.quotes("AAPL", 2)
    assert numbers(reading.result()) == [3, 4]


@pytest.mark.fault("Q02")
@pytest.mark.parametrize("waits", [False, True])
async def test_a_stream_begun_anew_is_told_and_read_from_its_start(
    bus: Bus, writer: Writer, redis: Redis, waits: bool
) -> None:
    """With smaller ids, too; one gap stands before its first entry."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    await deliver(stream, 10)
    async with asyncio.TaskGroup() as tasks:
        if waits:
            reading = tasks.create_task(deliver(stream, 4))
            await blocked(redis)
        await writer.rewind("AAPL")
        await writer.raw("XADD", STREAM, "5-1", "gap", b'{"from":1,"to":2,"reason":"x","epoch":1}')
        await writer.raw("XADD", STREAM, "5-2", "gap", b'{"from":1,"to":2,"reason":"y","epoch":1}')
        if not waits:
            reading = tasks.create_task(deliver(stream, 4))
        await until(lambda: has_group(redis, "AAPL"), 10 * REWIND_HOLDS_S)
        await writer.raw("XADD", STREAM, "6-1", "gap", b'{"from":1,"to":2,"reason":"z","epoch":1}')
    told = gaps(reading.result())
    assert [gap.reason for gap in told] == ["stream_recreated", "x", "y", "z"]
    assert told[0].id is None


async def test_an_emptied_server_does_not_end_the_work(bus: Bus, writer: Writer, redis: Redis) -> None:
    """After FLUSHALL the group is there again as soon as the stream is, with all that stands in it."""
    await writer.quotes("AAPL", 10)
    first = bus.group("g", "AAPL", start="earliest", consumer="a", claim_after_s=0.3)
    second = bus.group("g", "AAPL", start="earliest", consumer="b", claim_after_s=0.3)
    await deliver(first, 10)
    seen: list[Delivery] = []

    async def work(stream: object) -> None:
        async for delivery in stream:  # type: ignore[attr-defined]
            seen.append(delivery)
            await stream.ack(delivery)  # type: ignore[attr-defined]

    async with asyncio.TaskGroup() as tasks:
        running = [tasks.create_task(work(stream)) for stream in (first, second)]
        await blocked(redis, 2)
        await redis.flushall()
        await writer.quotes("AAPL", 40)

        async def has_all() -> bool:
            return set(range(10, 50)) <= set(numbers(seen))

        await until(has_all, 30)
        for task in running:
            task.cancel()
    assert {gap.reason for gap in gaps(seen)} <= {"stream_recreated"}


@pytest.mark.fault("Q01")
async def test_pending_entries_that_were_trimmed_are_told_and_settled(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """Whoever gets them learns how many there were, and they are pending no more."""
    await writer.quotes("AAPL", 10)
    await deliver(bus.group("g", "AAPL", start="earliest", consumer="gone"), 10, ack=False)
    await writer.raw("XTRIM", STREAM, "MINID", writer.ids["AAPL"][6])
    (found, *rest) = await deliver(bus.group("g", "AAPL", consumer="new", claim_after_s=0.2), 5)
    assert isinstance(found.item, Gap)
    assert (found.item.reason, found.item.missing, found.id) == ("trimmed", 6, None)
    assert found.item.from_ns == EntryId.parse(writer.ids["AAPL"][0]).time_ns
    assert found.item.to_ns == EntryId.parse(writer.ids["AAPL"][5]).time_ns
    assert numbers(rest) == [6, 7, 8, 9]
    assert all(d.is_claimed for d in rest)
    assert await pending(redis, "AAPL") == 0


@pytest.mark.fault("Q01")
async def test_gaps_that_were_found_together_outlive_a_loop_that_is_left(bus: Bus, writer: Writer) -> None:
    """A break at the first leaves the second to the next loop: Redis has forgotten what it stands for."""
    symbols = ("AAPL", "MSFT")
    for symbol in symbols:
        await writer.quotes(symbol, 10)
    await deliver(bus.group("g", *symbols, start="earliest", consumer="w"), 20, ack=False)
    for symbol in symbols:
        await writer.raw("XTRIM", KEYS.stream(symbol), "MAXLEN", 3)
    stream = bus.group("g", *symbols, consumer="w")
    found = [d for _ in range(8) for d in await deliver(stream, 1)]
    assert [(gap.symbol, gap.missing) for gap in gaps(found)] == [("AAPL", 7), ("MSFT", 7)]


@pytest.mark.fault("Q02")
async def test_a_strategy_that_never_waits_long_heals_its_group_too(bus: Bus, writer: Writer) -> None:
    """And is told: each of its short waits makes a connection, and ends in any moment."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=0.3)
    await deliver(stream, 10)
    await writer.rewind("AAPL")
    await writer.raw("XADD", STREAM, "5-1", "gap", b'{"from":1,"to":2,"reason":"x","epoch":1}')
    found: list[Delivery] = []
    async with asyncio.timeout(20 * REWIND_HOLDS_S):
        while len(found) < 2:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.3):
                    async for delivery in stream:
                        found.append(delivery)
                        await stream.ack(delivery)
    assert [gap.reason for gap in gaps(found)] == ["stream_recreated", "x"]


@pytest.mark.fault("Q01")
async def test_own_pending_entries_that_were_trimmed_are_told(bus: Bus, writer: Writer, redis: Redis) -> None:
    """Those that a worker left behind itself, as well."""
    await writer.quotes("AAPL", 10)
    await deliver(bus.group("g", "AAPL", start="earliest", consumer="w"), 10, ack=False)
    await writer.raw("XTRIM", STREAM, "MAXLEN", 0)
    stream = bus.group("g", "AAPL", consumer="w")
    (found,) = await deliver(stream, 1)
    assert isinstance(found.item, Gap)
    assert found.item.missing == 10
    await stream.aclose()
    assert await pending(redis, "AAPL") == 0


@pytest.mark.fault("Q01")
async def test_a_group_slower_than_trimming_is_told_how_much_it_missed(bus: Bus, writer: Writer) -> None:
    """XREADGROUP alone would jump over the hole in silence."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", start="earliest")
    found: list[Delivery] = []
    async with asyncio.timeout(30):
        async for delivery in stream:
            found.append(delivery)
            if len(found) == 10:
                await writer.quotes("AAPL", 100, maxlen=20)
                # A strategy that computes for longer than an answer is trusted.
                await asyncio.sleep(0.4)
            if len(found) == 31:
                break
    (gap,) = gaps(found)
    assert found[10].item is gap
    assert (gap.reason, gap.missing) == ("trimmed", 80)
    assert gap.from_ns == EntryId.parse(writer.ids["AAPL"][9]).time_ns
    assert numbers(found[11:]) == list(range(90, 110))


@pytest.mark.fault("Q01")
async def test_a_group_that_nobody_worked_for_is_told_what_retention_took(bus: Bus, writer: Writer) -> None:
    """The first worker that comes gets the gap, the second does not."""
    await writer.quotes("AAPL", 10)
    await deliver(bus.group("g", "AAPL", start="earliest", prefetch=5), 5)
    await writer.quotes("AAPL", 50, maxlen=10)
    found = await deliver(bus.group("g", "AAPL", consumer="a", prefetch=4), 5)
    assert [gap.reason for gap in gaps(found)] == ["trimmed"]
    assert found[0].item is gaps(found)[0]
    assert gaps(await deliver(bus.group("g", "AAPL", consumer="b"), 6)) == []


async def test_a_connection_cut_again_and_again_loses_nothing(bus: Bus, writer: Writer, redis: Redis) -> None:
    """An answer that was lost with entries in it is asked for again; an acknowledgement, too."""
    seen: list[Delivery] = []
    stream = bus.group("g", "AAPL", start="earliest", claim_after_s=60)

    async def work() -> None:
        async for delivery in stream:
            seen.append(delivery)
            await stream.ack(delivery)

    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(work())
        for _ in range(40):
            await writer.quotes("AAPL", 10)
            await writer.raw("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

        async def done() -> bool:
            return set(numbers(seen)) == set(range(400)) and await pending(redis, "AAPL") == 0

        await until(done, 60)
        task.cancel()
    assert gaps(seen) == []
    assert stream.acks_waiting == 0
    # Handed over once each: what the strategy has is not handed to it again after a reconnection.
    assert numbers(seen) == list(range(400))


async def test_acknowledgements_while_redis_is_away_are_sent_when_it_is_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """`ack` does not raise for an outage, warns once, and nothing that was acknowledged comes again."""
    caplog.set_level("INFO", "consumers")
    with RedisServer(appendonly=True, options=("--appendfsync", "always")) as mortal:
        async with (
            connect(mortal.url, reconnect=FAST, timeout_s=1.0) as bus,
            Redis.from_url(mortal.url, protocol=2) as redis,
        ):
            writer = Writer(redis)
            await writer.quotes("AAPL", 3)
            stream = bus.group("g", "AAPL", start="earliest")
            seen = []
            async with asyncio.timeout(60):
                async for delivery in stream:
                    seen.append(delivery)
                    if len(seen) == 3:
                        mortal.kill()
                        for each in seen:
                            await stream.ack(each)
                        assert stream.acks_waiting == 3
                        await asyncio.to_thread(mortal.start)
                        await writer.quotes("AAPL")
                    if len(seen) == 4:
                        break
            assert numbers(seen) == [0, 1, 2, 3]
            assert stream.acks_waiting == 0
            assert await pending(redis, "AAPL") == 1
    told = [record for record in caplog.records if "acknowledgements wait" in record.message]
    assert [record.levelname for record in told] == ["WARNING", "INFO", "INFO"]


async def test_the_lag_is_right_just_after_trimming(bus: Bus, writer: Writer) -> None:
    """It counts what can still be read, which XINFO GROUPS does not."""
    await writer.quotes("AAPL", 10)
    stream = bus.group("g", "AAPL", "MSFT", start="earliest", consumer="w", prefetch=4)
    await deliver(stream, 2, ack=False)
    lag = (await stream.lag())["AAPL"]
    assert (lag.entries, lag.is_exact, lag.pending) == (6, True, 4)
    assert lag.ms == pytest.approx(6 * 1.000003)
    assert [(member.name, member.pending) for member in lag.members] == [("w", 4)]
    assert 0 <= lag.members[0].idle_s < 60
    await writer.quotes("AAPL", 100, maxlen=20)
    lag = (await stream.lag("AAPL"))["AAPL"]
    assert (lag.entries, lag.is_exact, lag.pending) == (20, True, 4)
    await writer.raw("XDEL", STREAM, writer.ids["AAPL"][-5])
    assert (await stream.lag("AAPL"))["AAPL"].entries == 19
    await writer.raw("XTRIM", STREAM, "MAXLEN", 0)
    lag = (await stream.lag("AAPL"))["AAPL"]
    assert (lag.entries, lag.ms) == (0, 0.0)
    assert not (await stream.lag("MSFT"))["MSFT"].exists


async def test_leaving_takes_a_name_off_only_with_nothing_pending(
    bus: Bus, writer: Writer, redis: Redis
) -> None:
    """A name that was not chosen would otherwise stay with Redis for ever."""
    await writer.quotes("AAPL", 2)
    async with bus.group("g", "AAPL", start="earliest", consumer="kept", leave=True, prefetch=1) as stream:
        await deliver(stream, 1, ack=False)
    async with bus.group("g", "AAPL", claim_after_s=60) as stream:
        await deliver(stream, 1)
    names = [found["name"] for found in await redis.xinfo_consumers(STREAM, "g")]
    assert [name for name in names if not name.startswith(TAG.encode())] == [b"kept"]


async def test_what_a_leaving_worker_has_pending_is_claimed_at_once(bus: Bus, writer: Writer) -> None:
    """Nobody comes back under a name that was made up, so nobody need wait for `claim_after_s`."""
    await writer.quotes("AAPL", 9)
    async with bus.group("g", "AAPL", start="earliest", consumer="made-up", leave=True) as stream:
        await deliver(stream, 3)
    found = await deliver(bus.group("g", "AAPL", consumer="other"), 6, timeout_s=20)
    assert numbers(found) == [3, 4, 5, 6, 7, 8]
    assert all(d.is_claimed for d in found)


async def test_workers_without_a_name_each_have_their_own(bus: Bus, writer: Writer, redis: Redis) -> None:
    """Also on one bus: one that leaves takes nothing of the other with it."""
    await writer.quotes("AAPL", 8)
    first = bus.group("g", "AAPL", start="earliest", prefetch=4)
    second = bus.group("g", "AAPL", start="earliest", prefetch=4)
    assert first.consumer != second.consumer
    async with first, second:
        got = await deliver(first, 1)
        got += await deliver(second, 1)
        await first.aclose()
        got += await deliver(second, 3)
    assert numbers(got) == [0, 4, 5, 6, 7]
    assert numbers(await deliver(bus.group("g", "AAPL"), 3)) == [1, 2, 3]


async def test_what_is_given_to_a_name_that_was_taken_off_is_pending_under_it(
    bus: Bus, redis: Redis, writer: Writer
) -> None:
    """As to a connection of a worker that has left, when Redis has not seen its end: another worker claims it."""
    await writer.quotes("AAPL")
    stream = bus.group("g", "AAPL", start="earliest", consumer="late", leave=True)
    await deliver(stream, 1)
    async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:

        async def read() -> list[Any]:
            return list(await redis.xreadgroup("g", "late", {STREAM: ">"}, block=20_000))

        reading = tasks.create_task(read())
        await blocked(redis)
        await stream.aclose()
        names = [found["name"] for found in await redis.xinfo_consumers(STREAM, "g")]
        assert b"late" not in names
        await writer.quotes("AAPL")
    assert len(reading.result()) == 1
    found = await deliver(bus.group("g", "AAPL", consumer="other", claim_after_s=0.2), 1)
    assert numbers(found) == [1]
    assert found[0].is_claimed


async def test_a_worker_leaves_many_symbols_in_few_round_trips(
    bus: Bus, redis: Redis, writer: Writer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within the two seconds that it has, also where each takes a millisecond: all it had is released."""
    symbols = [f"S{n:03d}" for n in range(400)]
    for symbol in symbols:
        await writer.quotes(symbol)
    trips = 0
    ask = SharedLink._ask

    async def counted(link: SharedLink, commands: Any, **options: Any) -> Any:
        nonlocal trips
        trips += 1
        return await ask(link, commands, **options)

    stream = bus.group("g", *symbols, start="earliest", consumer="made-up", leave=True)
    await deliver(stream, 1, ack=False)
    had = [symbol for symbol in symbols if await pending(redis, symbol)]
    assert len(had) >= 50
    monkeypatch.setattr(SharedLink, "_ask", counted)
    await stream.aclose()
    assert trips < 10
    for symbol in had:
        entries: list[Any] = await redis.xpending_range(KEYS.stream(symbol), "g", "-", "+", 10)
        assert [entry["time_since_delivered"] >= RELEASED_IDLE_MS for entry in entries] == [True]


async def test_a_name_like_that_of_a_generation_is_refused(bus: Bus) -> None:
    """A worker under it would be taken for what marks the group, and would be missing from its lag."""
    with pytest.raises(ValueError, match="generations of a group"):
        bus.group("g", "AAPL", consumer="generation:1")


async def test_closing_ends_a_loop_that_waits(bus: Bus, redis: Redis, writer: Writer) -> None:
    """And a second loop over the same worker is refused while the first one waits."""
    await writer.quotes("AAPL")
    stream = bus.group("g", "AAPL")
    async with asyncio.timeout(20), asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_all(stream))
        await blocked(redis)
        with pytest.raises(BusError, match="read by another loop"):
            await anext(aiter(stream))
        await stream.aclose()
    assert task.result() == []


async def _all(stream: object) -> list[Delivery]:
    return [delivery async for delivery in stream]  # type: ignore[attr-defined]


async def test_a_key_that_is_no_stream_bars_only_its_symbol(
    bus: Bus, writer: Writer, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    """It is named in the log, and read when it has become a stream."""
    await redis.set(KEYS.stream("BAD"), "x")
    await writer.quotes("AAPL")
    stream = bus.group("g", "AAPL", "BAD", start="earliest")
    assert numbers(await deliver(stream, 1)) == [0]
    assert "quotes:stream:BAD" in caplog.text
    await redis.delete(KEYS.stream("BAD"))
    await writer.quotes("BAD")
    assert [d.symbol for d in await deliver(stream, 1)] == ["BAD"]


async def test_a_user_without_the_rights_is_told_so(
    server: RedisServer, redis: Redis, writer: Writer
) -> None:
    """Not after endless attempts: at once, with the command that is missing."""
    await writer.quotes("AAPL")
    await writer.raw(
        "ACL", "SETUSER", "reader", "on", ">p", "~*", "+@read", "+@connection", "+multi", "+exec"
    )
    async with connect(server.url.replace("//", "//reader:p@"), reconnect=FAST) as bus:
        with pytest.raises(BusUnavailable, match="lacks a permission"):
            await deliver(bus.group("g", "AAPL"), 1)


@pytest.mark.parametrize(
    "options",
    [
        {"consumer": ""},
        {"consumer": "a b"},
        {"claim_after_s": 0},
        {"claim_after_s": float("nan")},
        {"claim_after_s": "30"},
        {"prefetch": 0},
        {"prefetch": "500"},
        {"prefetch": 0.5},
    ],
)
async def test_an_option_that_cannot_be_used_is_named(bus: Bus, options: dict[str, object]) -> None:
    """Before anything is asked."""
    with pytest.raises(ValueError, match=next(iter(options))):
        bus.group("g", "AAPL", **options)  # type: ignore[arg-type]


async def test_only_deliveries_are_acknowledged(bus: Bus) -> None:
    """A list of them, or an id, is refused with the remedy."""
    stream = bus.group("g", "AAPL")
    odds: tuple[Any, ...] = ([], "1763000000000-0")
    for odd in odds:
        with pytest.raises(TypeError, match=r"pass deliveries one by one, as in ack\(\*deliveries\)"):
            await stream.ack(odd)


async def test_what_is_acknowledged_late_is_no_loss(bus: Bus, writer: Writer, redis: Redis) -> None:
    """Its first worker may be done with it while another is about to fetch it: then nobody has missed anything."""
    await writer.quotes("AAPL", 3)
    await deliver(bus.group("g", "AAPL", start="earliest", consumer="slow"), 3, ack=False)
    stream = bus.group("g", "AAPL", consumer="quick", claim_after_s=0.2)
    pending_, fetch = stream._share.membership._pending, stream._share.membership._pending._fetch

    def acknowledged_just_before(tracks: list[Any]) -> Any:
        step = fetch(tracks)
        late = ("XACK", STREAM, "g", *writer.ids["AAPL"][:2])
        return step._replace(
            commands=[late, *step.commands], digest=lambda replies, now_s: step.digest(replies[1:], now_s)
        )

    pending_._fetch = acknowledged_just_before  # type: ignore[method-assign]
    assert numbers(await deliver(stream, 1)) == [2]
    assert await pending(redis, "AAPL") == 0
