"""The primary is at another address than before: in a URL file that is written anew, and after a restart."""

import signal
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.conftest import until
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, subscribed
from tests.scenario.test_sentinels import own_pair
from tests.scenario.traffic import Traffic, is_quiet

__all__ = ["own_pair"]


@pytest.mark.fault("K18")
async def test_a_new_address_in_the_url_file_is_gone_to_by_every_part(
    own_pair: tuple[RedisServer, RedisServer], vendor: AlpacaSimulator, tmp_path: Path
) -> None:
    """Quotes, status and changes of the set: after the failover all of them happen on the new primary."""
    primary, replica = own_pair
    url = tmp_path / "redis_url"
    url.write_text(primary.url)
    traffic = Traffic(vendor, "AAPL")
    daemon = DaemonProcess(primary.url, vendor.url("iex")).with_environment(QUOTEBUS_REDIS_URL_FILE=str(url))
    del daemon.environment["QUOTEBUS_REDIS_URL"]
    async with (
        Redis.from_url(primary.url, decode_responses=True, protocol=2) as on_primary,
        Redis.from_url(replica.url, decode_responses=True, protocol=2) as on_replica,
        daemon,
    ):
        await daemon.until_live()
        await subscribed(on_primary, vendor, "AAPL")
        async with traffic.flowing(200):
            await daemon.until(lambda status: status["stored"] > 100)
            primary.kill()
            await on_replica.replicaof("NO", "ONE")
            url.write_text(replica.url)
            status = await daemon.until(lambda status: status["state"] == "live", 60)
            before = status["stored"]
            await daemon.until(lambda status: status["stored"] > before + 100, 60)

            async def is_reported() -> bool:
                return bool(int(await on_replica.hget(KEYS.status, "stored") or 0) > before)

            await until(is_reported, 60)
        await traffic.everything_arrived(daemon, on_replica)
        await subscribed(on_replica, vendor, "AAPL", "MSFT")
        assert is_quiet(daemon), daemon.log


@pytest.mark.fault("K52")
async def test_what_waits_on_disk_is_found_again_at_another_address(
    own_pair: tuple[RedisServer, RedisServer], vendor: AlpacaSimulator
) -> None:
    """The folder belongs to the data, not to the address: a restart on the new primary stores what was left."""
    primary, replica = own_pair
    traffic = Traffic(vendor, "AAPL")
    daemon = DaemonProcess(primary.url, vendor.url("iex"), drain_s="1")
    async with (
        Redis.from_url(primary.url, decode_responses=True, protocol=2) as on_primary,
        Redis.from_url(replica.url, decode_responses=True, protocol=2) as on_replica,
        daemon,
    ):
        await daemon.until_live()
        await subscribed(on_primary, vendor, "AAPL")
        async with traffic.flowing(200):
            await daemon.until(lambda status: status["stored"] > 100)
            primary.kill()
            await daemon.until(lambda status: status["queued"] + status["spooled"] > 200, 60)
        daemon.signal(signal.SIGTERM)
        assert await daemon.ended(60) == 3
        await on_replica.replicaof("NO", "ONE")
        daemon.with_environment(QUOTEBUS_REDIS_URL=replica.url.replace("127.0.0.1", "localhost"))
        daemon.start()
        await daemon.until_live(120)
        await daemon.until(lambda status: status["spooled"] == 0 and status["recovered"] > 0, 60)
        await daemon.told("spool_recovered")
        assert len(list(daemon.spool.iterdir())) == 1
