"""Quotes that come and are not stored: every place that tells how the daemon fares says so, and when it is over."""

import asyncio
import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any, Final, Self

import pytest
from redis.asyncio import Redis

from consumers import Bus, Level, connect
from ingestor.watching.storage_watch import LOOK_EVERY_S
from ingestor.watching.storing import REJECTED_FOR_S
from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.ingestor.vendor import packed, quote
from tests.scenario.account import is_well, metric, starved_s
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.notices import Notices
from tests.scenario.streams import (
    BASE_NS,
    KEYS,
    event_exists,
    gaps,
    ledger_is_even,
    numbered,
    numbers,
    state_is,
    subscribed,
)
from wire.times import UNITS

AT_ONCE_S: Final = 5.0
"""What the README promises."""


def element(n: int, symbol: str = "AAPL", **fields: Any) -> dict[str, Any]:
    """A quote with the running number n, in the vendor's words, with these fields changed."""
    return quote(symbol, BASE_NS + n * 1_000_003, **{"bs": n, **fields})


async def within(daemon: DaemonProcess, condition: Callable[[], Awaitable[bool]]) -> None:
    """Wait until it holds: as long as is promised, and as the daemon and this process, both of which have
    to run for it, were kept from running by others."""
    began_s, hindered_s = time.monotonic(), starved_s(daemon) + own_starved_s()
    while not await condition():
        allowed_s = AT_ONCE_S + starved_s(daemon) + own_starved_s() - hindered_s
        took_s = time.monotonic() - began_s
        assert took_s < allowed_s, (
            f"not so within {took_s:.1f} s: {await daemon.status()}\n{daemon.log[-2000:]}"
        )
        await asyncio.sleep(0.02)


def own_starved_s() -> float:
    """How long this process could have run and was not let."""
    return int(Path(f"/proc/self/task/{os.getpid()}/schedstat").read_text().split()[1]) / 1e9


class Flow:
    """Quotes in the background, one frame every 50 ms; what they are can be changed at any time."""

    def __init__(self, vendor: AlpacaSimulator, *symbols: str) -> None:
        self._vendor = vendor
        self.odd: dict[str, dict[str, Any]] = {symbol: {} for symbol in symbols}
        self.sent = 0

    async def __aenter__(self) -> Self:
        self._group = asyncio.TaskGroup()
        await self._group.__aenter__()
        self._task = self._group.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()
        await self._group.__aexit__(None, None, None)

    async def _run(self) -> None:
        while True:
            now_ns = time.time_ns()
            frame = [quote(symbol, now_ns, **{"bs": self.sent, **odd}) for symbol, odd in self.odd.items()]
            self._vendor.send_raw(packed(*frame))
            self.sent += len(frame)
            await asyncio.sleep(0.05)


async def not_ready(daemon: DaemonProcess, *words: str) -> bool:
    """Whether readiness says no, with these words."""
    code, text = await daemon.page("/readyz")
    return code == 503 and all(word in text for word in words)


async def state_of(daemon: DaemonProcess, state: str) -> bool:
    """Whether the daemon's status says this state."""
    return bool((await daemon.status())["state"] == state)


async def is_on(bus: Bus, level: Level, symbol: str = "AAPL") -> bool:
    """Whether the symbol's cached quote is on this level."""
    return (await bus.quality(symbol))[symbol].level is level


async def ready(daemon: DaemonProcess) -> bool:
    """Whether readiness says yes."""
    return (await daemon.page("/readyz"))[0] == 200


def listed(server: RedisServer) -> dict[str, dict[str, Any]]:
    """What `quotebus symbols ls --json` prints, by symbol."""
    done = subprocess.run(
        [sys.executable, "-c", "from ingestor.cli import main; main()", "symbols", "ls", "--json"],
        env={**os.environ, "QUOTEBUS_REDIS_URL": server.url},
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    return {row["symbol"]: row for row in json.loads(done.stdout)}


async def states(redis: Redis, symbols: Iterable[str]) -> set[str]:
    """The states that `quotes:subscriptions` shows for these."""
    found = [await redis.hget(KEYS.subscriptions, symbol) for symbol in symbols]
    return {json.loads(value or '{"state": "unseen"}')["state"] for value in found}


ODD: Final[dict[str, dict[str, Any]]] = {
    "bad_price": {"bp": math.nan},
    "bad_time": {"t": 5},
    "not_subscribed": {"S": "aapl"},
    "bad_symbol": {"S": 7},
}
"""By the reason of their rejection, what makes a quote odd."""


@pytest.mark.fault("S23", "S31", "S53")
async def test_a_flow_of_which_nothing_is_stored_is_called_health_nowhere(
    shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Readiness, state, quality, the symbol's state and systemd's line, whatever is odd; the session is kept."""
    async with (
        Notices(tmp_path) as notices,
        DaemonProcess(shared_server.url, vendor.url("iex"), mute_after_s="2").with_environment(
            NOTIFY_SOCKET=str(notices.path)
        ) as daemon,
        connect(shared_server.url) as bus,
    ):
        await daemon.until_live(60)
        await subscribed(redis, vendor, "AAPL")
        async with Flow(vendor, "AAPL") as flow:
            for reason, fields in ODD.items():
                await within(daemon, lambda: ready(daemon))
                await within(daemon, lambda: state_of(daemon, "live"))
                await within(daemon, lambda: state_is(redis, "AAPL", "live"))
                await within(daemon, lambda: is_on(bus, Level.LIVE))
                notices.received.clear()
                flow.odd["AAPL"] = fields
                await within(daemon, lambda reason=reason: not_ready(daemon, "storing", reason))  # type: ignore[misc]
                await within(daemon, lambda: state_of(daemon, "not_storing"))
                await within(daemon, lambda: state_is(redis, "AAPL", "not_stored"))
                await within(daemon, lambda: is_on(bus, Level.STALE))
                line = "STATUS=not_storing: 0 of 1 symbols live, 1 not stored"
                await within(daemon, lambda line=line: notices.has(line))  # type: ignore[misc]
                await until(lambda reason=reason: event_exists(redis, "quotes_rejected", subject=reason))  # type: ignore[misc]
                flow.odd["AAPL"] = {}
            await within(daemon, lambda: ready(daemon))
        status = await daemon.status()
        assert (status["watchdog"], status["reconnects"]) == ("", 0)
        assert await event_exists(redis, "not_storing")
        assert await event_exists(redis, "storing")
        found = [gap.reason for gap in await gaps(redis, "AAPL")]
        assert found == ["rejected", "rejected"]
        await is_well(daemon)


@pytest.mark.fault("K26")
async def test_a_symbol_whose_stream_refuses_is_not_called_live_and_the_others_are(
    daemon: DaemonProcess, shared_server: RedisServer, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """However many they are: at once in state, quality and list; and live again when it is mended."""
    names = [f"T{n:02d}" for n in range(25)]
    await subscribed(redis, vendor, "AAPL", *names)
    async with Flow(vendor, "AAPL", *names), connect(shared_server.url) as bus:
        await daemon.until(lambda status: status["stored"] > 100)
        for name in names:
            await redis.delete(KEYS.stream(name))
            await redis.set(KEYS.stream(name), "x")

        async def all_are(state: str) -> bool:
            return await states(redis, names) == {state}

        await within(daemon, lambda: all_are("not_stored"))
        await within(daemon, lambda: ready(daemon))
        status = await daemon.until(
            lambda status: (status["live"], status["not_stored"], status["state"]) == (1, 25, "live")
        )
        assert status["refusing"].endswith(" and 5 more")
        await within(daemon, lambda: is_on(bus, Level.LIVE))
        found = await bus.quality("AAPL", *names)
        assert found.pop("AAPL").is_live
        assert {quality.level for quality in found.values()} == {Level.STALE}
        assert all("wrong_type" in (quality.reason or "") for quality in found.values())
        rows = await asyncio.to_thread(listed, shared_server)
        assert {rows[name]["state"] for name in names} == {"not_stored"}
        assert rows["AAPL"]["state"] == "live"
        await redis.delete(*map(KEYS.stream, names))
        await within(daemon, lambda: all_are("live"))

        async def all_can_be_trusted() -> bool:
            return all(quality.is_live for quality in (await bus.quality(*names)).values())

        await within(daemon, all_can_be_trusted)
    assert ledger_is_even(await daemon.status())


@pytest.mark.fault("S22", "S23")
async def test_an_odd_side_field_costs_no_quote_and_is_counted(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Of another type, or out of range: each quote is stored with its prices, the field is null."""
    await subscribed(redis, vendor, "AAPL")
    odd: list[tuple[str, Any]] = [
        ("bs", math.nan),
        ("bs", -1),
        ("as", 2**64 - 1),
        ("bs", "300"),
        ("bx", 12),
        ("ax", ["N"]),
        ("c", "R"),
        ("z", 1),
    ]
    vendor.send_raw(
        packed(*(quote("AAPL", BASE_NS + n, **{name: value}) for n, (name, value) in enumerate(odd)))
    )
    vendor.send_raw(packed(element(100, bs=0.5)))
    status = await daemon.until(lambda status: status["stored"] == len(odd) + 1)
    assert (status["received"], status["rejected"]) == (len(odd) + 1, 0)
    rows: Any = await redis.xrange(KEYS.stream("AAPL"))
    positions = ("bp", "bs", "bx", "ap", "as", "ax", "c", "z")
    for (_, fields), (name, _) in zip(rows, odd, strict=False):
        values = dict(zip(positions, json.loads(fields["q"]), strict=False))
        assert values.pop(name) is None
        assert None not in values.values()
    assert json.loads(rows[-1][1]["q"])[1] == 0.5
    text = (await daemon.page("/metrics"))[1]
    assert metric(text, "quotebus_source_odd_fields_total", field="bs", oddity="out_of_range") == 2
    assert metric(text, "quotebus_source_odd_fields_total", field="c", oddity="wrong_type") == 1
    await until(lambda: event_exists(redis, "odd_field", subject="z"))
    await is_well(daemon)


@pytest.mark.fault("S22", "S23")
async def test_a_refused_quote_leaves_a_marker_in_its_place(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Within one frame as well: what came before it, the marker, what came after it."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send_raw(packed(element(1), element(0, bp=math.inf), element(2), element(3)))
    status = await daemon.until(lambda status: status["stored"] == 3)
    assert (status["received"], status["rejected"]) == (4, 1)
    assert await numbers(redis, "AAPL") == [1, 2, 3]
    entries: Any = await redis.xrange(KEYS.stream("AAPL"))
    kinds = [next(iter(fields)) for _, fields in entries]
    assert kinds == ["q", "gap", "q", "q"]
    await is_well(daemon)


@pytest.mark.fault("S22", "S25")
async def test_junk_in_a_silent_session_is_no_quote_that_was_lost(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Control messages that are none, and what is no message at all, are counted, and nothing else changes."""
    await subscribed(redis, vendor, "AAPL")
    await until(lambda: state_is(redis, "AAPL", "live"))
    junk: list[Any] = [{"T": "success", "msg": {"x": 1}}, {"T": "subscription", "quotes": "AAPL"}, 7, [[1]]]
    for element_ in junk:
        vendor.send_raw(packed(element_))
    vendor.send_raw(b"")
    await asyncio.sleep(REJECTED_FOR_S + 0.5)  # one burst alone would be forgiven
    for element_ in junk:
        vendor.send_raw(packed(element_))
    await asyncio.sleep(4 * LOOK_EVERY_S)  # until it was looked at
    text = (await daemon.page("/metrics"))[1]
    assert metric(text, "quotebus_source_unreadable_messages_total") == 2 * len(junk) + 1
    assert "not_storing" not in daemon.kinds()
    assert (await daemon.page("/readyz"))[0] == 200
    assert await state_is(redis, "AAPL", "live")
    await is_well(daemon)


@pytest.mark.fault("S31")
async def test_times_that_are_whole_numbers_or_text_are_read(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """All are stored, to the precision that they have, and it is said once how they were spelt."""
    await subscribed(redis, vendor, "AAPL")
    second = BASE_NS // 10**9
    spelt: list[Any] = ["2025-11-13T02:13:24.123825050Z"]
    spelt += [second * 10**9 // ns for ns in UNITS.values()]
    for n, at in enumerate(spelt * 10, 1):
        vendor.send_raw(packed(element(n, t=at)))
    status = await daemon.until(lambda status: status["stored"] == 50)
    assert status["rejected"] == 0
    assert await numbers(redis, "AAPL") == list(range(1, 51))
    metrics = (await daemon.page("/metrics"))[1]
    for spelling in ("text", *UNITS):
        assert metric(metrics, "quotebus_times_read_total", spelling=spelling) == 10
        await until(lambda spelling=spelling: event_exists(redis, "odd_time", subject=spelling))  # type: ignore[misc]
    await daemon.told("odd_time", count=5)
    assert daemon.kinds().count("odd_time") == 5
    await is_well(daemon)


@pytest.mark.fault("K51")
async def test_a_position_that_somebody_else_has_changed_costs_no_quote(
    daemon: DaemonProcess, redis: Redis, vendor: AlpacaSimulator
) -> None:
    """The server claims batches that were never sent, or nothing readable: said, put right, nothing lost."""
    await subscribed(redis, vendor, "AAPL")
    sent = 0
    for batch in ("1000000000", "x", "-5", "1e300", "nan", "3", "1000000000"):
        for size in (1, 1, 30):
            vendor.send(numbered("AAPL", sent + 1, size), frame_size=3)
            sent += size
            if size == 1:
                await daemon.until(lambda s: s["stored"] + s["already_stored"] == sent, 20)  # noqa: B023
                await redis.hset(KEYS.writer, "batch", batch)
        await daemon.until(lambda s: s["stored"] + s["already_stored"] == sent, 20)  # noqa: B023
        assert float(await redis.hget(KEYS.writer, "batch") or 0) < 10_000
    assert await numbers(redis, "AAPL") == list(range(1, sent + 1))
    assert not await gaps(redis, "AAPL")
    await until(lambda: event_exists(redis, "position_changed", claimed="1000000000"))
    await within(daemon, lambda: ready(daemon))
    await is_well(daemon)
