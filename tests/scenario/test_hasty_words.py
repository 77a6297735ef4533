"""A vendor whose first frames come in the very segment that opens the websocket."""

from redis.asyncio import Redis

from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.hasty import GREETING, SLOT_TAKEN, HastyVendor
from tests.scenario.streams import KEYS, numbered, numbers


async def test_a_greeting_in_the_segment_of_the_upgrade_is_answered_at_once(
    shared_server: RedisServer, redis: Redis
) -> None:
    """The daemon authenticates without waiting for anything else, and quotes are stored."""
    await redis.sadd(KEYS.symbols, "AAPL")
    async with (
        HastyVendor([GREETING]) as vendor,
        DaemonProcess(shared_server.url, vendor.url) as daemon,
    ):
        await daemon.until(lambda status: status["live"] == 1, 15)
        vendor.send(numbered("AAPL", 1, 5))
        await daemon.until(lambda status: status["stored"] == 5)
        assert len(vendor.opened_s) == 1
        assert vendor.authenticated_s[0] - vendor.opened_s[0] < 1.0
    assert await numbers(redis, "AAPL") == [1, 2, 3, 4, 5]


async def test_a_refusal_in_the_segment_of_the_upgrade_is_a_goodbye_and_another_try(
    shared_server: RedisServer, redis: Redis
) -> None:
    """Greeted and turned away in one breath, the daemon closes in good order at once and comes again later."""
    await redis.sadd(KEYS.symbols, "AAPL")
    async with (
        HastyVendor([GREETING, SLOT_TAKEN], [GREETING]) as vendor,
        DaemonProcess(shared_server.url, vendor.url) as daemon,
    ):
        await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
        await until(lambda: _has_heard_a_goodbye(vendor))
        assert vendor.goodbyes_s[0] - vendor.opened_s[0] < 1.0
        assert (await daemon.page("/readyz"))[0] == 503
        _, metrics = await daemon.page("/metrics")
        assert 'quotebus_source_errors_total{code="406"} 1.0' in metrics
        await daemon.until(lambda status: status["live"] == 1, 12)
        assert len(vendor.opened_s) == 2
        assert vendor.opened_s[1] - vendor.goodbyes_s[0] >= 2.0
        vendor.send(numbered("AAPL", 1, 5))
        await daemon.until(lambda status: status["stored"] == 5)


async def test_a_refusal_before_any_greeting_in_the_segment_of_the_upgrade_is_a_goodbye_too(
    shared_server: RedisServer, redis: Redis
) -> None:
    """An error as the very first word leaves nothing to wait for."""
    async with (
        HastyVendor([SLOT_TAKEN], [GREETING]) as vendor,
        DaemonProcess(shared_server.url, vendor.url) as daemon,
    ):
        await daemon.until(lambda status: status["reconnect_attempt"] == 1, 15)
        await until(lambda: _has_heard_a_goodbye(vendor))
        assert vendor.goodbyes_s[0] - vendor.opened_s[0] < 1.0
        await daemon.until_live(12)


async def _has_heard_a_goodbye(vendor: HastyVendor) -> bool:
    return bool(vendor.goodbyes_s)
