"""What a daemon finds when it starts: no Redis yet, a user without rights, a server that cannot hold the bus."""

import asyncio
import time

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer, free_port
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS
from tests.scenario.traffic import Traffic, is_quiet

NOT_PERMITTED = 6
MUST_BE_MENDED = 2


@pytest.mark.fault("K01")
async def test_without_redis_nothing_is_asked_of_the_vendor_and_with_it_the_daemon_is_ready_at_once(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Alive, unready and silent towards the vendor while Redis is not there; then live without a restart."""
    await own_redis.sadd(KEYS.symbols, "AAPL")
    await asyncio.to_thread(own_server.stop)
    async with DaemonProcess(own_server.url, vendor.url("iex")) as daemon:
        await daemon.told("redis_away")
        ends_s = time.monotonic() + 3.0
        while time.monotonic() < ends_s:
            assert (await daemon.page("/livez"))[0] == 200
            code, text = await daemon.page("/readyz")
            assert (code, "redis" in text) == (503, True)
            await asyncio.sleep(0.05)
        assert (await daemon.status())["state"] == "starting"
        assert not vendor.actions
        began_s = time.monotonic()
        await asyncio.to_thread(own_server.start)
        await until(lambda: _is_ready(daemon))
        # Two seconds, three times generous.
        assert time.monotonic() - began_s < 6.0
        await vendor.wait_for(lambda: vendor.symbols == {"AAPL"})
        traffic = Traffic(vendor, "AAPL")
        traffic.send(10)
        await traffic.everything_arrived(daemon, own_redis)
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K25")
async def test_a_user_without_rights_ends_the_daemon_with_one_message_that_lists_them_all(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator
) -> None:
    """Two commands and a key are missing: one line names the three, nothing is written, and nobody is called."""
    # No pattern takes a single key away, the cache in this case; so all others are given.
    patterns = [f"quotes:{first}*" for first in "sewi"]
    await own_redis.acl_setuser(
        "daemon",
        enabled=True,
        passwords=["+password-1"],
        keys=patterns,
        channels=["*"],
        commands=["+@all", "-xadd", "-expire"],
    )
    await own_redis.sadd(KEYS.symbols, "AAPL")
    url = own_server.url.replace("redis://", "redis://daemon:password-1@")
    async with DaemonProcess(url, vendor.url("iex")) as daemon:
        assert await daemon.ended() == NOT_PERMITTED
        told = (await daemon.told("redis_not_permitted"))["reason"]
        for missing in (
            f"XADD {KEYS.stream('ANY-')}",
            f"EXPIRE {KEYS.stream('ANY-')}",
            f"HSET {KEYS.latest}",
        ):
            assert missing in told
        assert f"HSET {KEYS.status}" not in told
        assert daemon.kinds().count("redis_not_permitted") == 1
        assert "Traceback" not in daemon.log
        assert "password-1" not in daemon.log
    assert await own_redis.keys() == [KEYS.symbols]
    assert not vendor.actions


@pytest.mark.fault("K38")
async def test_a_node_of_a_cluster_ends_the_daemon_with_a_plain_reason(vendor: AlpacaSimulator) -> None:
    """Keys of one call would lie on several nodes: that is said before anything is written, with what to use."""
    # By default the nodes talk on a port 10 000 higher, which may be none.
    options = ("--cluster-enabled", "yes", "--cluster-port", str(free_port()))
    with RedisServer(options=options) as node:
        async with DaemonProcess(node.url, vendor.url("iex")) as daemon:
            assert await daemon.ended() == MUST_BE_MENDED
            told = (await daemon.told("redis_unsuitable"))["reason"]
            assert "Redis Cluster" in told
            assert "use a single server" in told
            assert "Traceback" not in daemon.log
    assert not vendor.actions


async def _is_ready(daemon: DaemonProcess) -> bool:
    return (await daemon.page("/readyz"))[0] == 200
