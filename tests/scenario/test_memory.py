"""Memory has bounds: however long Redis stays away and however much comes, the kernel finds no reason to kill."""

import re
from pathlib import Path

import pytest
from redis.asyncio import Redis

from simulator import AlpacaSimulator
from simulator.redis_server import RedisServer
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import subscribed
from tests.scenario.traffic import Traffic, is_quiet

MIB = 1024 * 1024
MEMORY_BYTES = 4 * MIB
REPLAY_BYTES = 4 * MIB
WORKING_BYTES = 20 * MIB
"""What frames, the allocator's reserves and batches on their way may add. Unbounded, it would be 36 in all."""
QUOTES = 300_000
PORTION = 10_000


@pytest.mark.fault("P07")
@pytest.mark.parametrize("spool", ["disk", "off"])
async def test_a_flood_while_redis_is_frozen_stays_within_the_bounds(
    own_server: RedisServer, own_redis: Redis, vendor: AlpacaSimulator, spool: str
) -> None:
    """300 000 quotes and nowhere to put them: peak memory is that of idling, the configured bounds, and 20 MiB."""
    settings = {"memory_bytes": str(MEMORY_BYTES), "replay_bytes": str(REPLAY_BYTES), "stream_maxlen": "0"}
    if spool == "off":
        settings["spool_dir"] = "off"
    daemon = DaemonProcess(own_server.url, vendor.url("iex"), **settings)
    daemon.may_be_warm = False
    async with daemon:
        await daemon.until_live()
        await subscribed(own_redis, vendor, "AAPL")
        traffic = Traffic(vendor, "AAPL")
        traffic.send(1000)
        await traffic.settled(daemon)
        idle_bytes = _memory_bytes(daemon, "VmRSS")
        own_server.pause()
        try:
            for _ in range(QUOTES // PORTION):
                traffic.send(PORTION, frame_size=500)
                await daemon.until(lambda status: status["received"] == traffic.sent, 30)
                if spool == "disk":
                    # However slow it is: this is not about a flow that the disk cannot keep up with.
                    await daemon.until(lambda status: status["queued"] < PORTION, 30)
        finally:
            own_server.resume()
        status = await traffic.settled(daemon, 90)
        verdict = await traffic.verdict(own_redis)
        assert verdict.is_honest, verdict
        assert verdict.missing_in_gaps == status["dropped"]
        # What does not fit goes to the disk; without one, the oldest go, and are marked.
        assert (status["dropped"] > 0) == (spool == "off")
        assert _memory_bytes(daemon, "VmHWM") - idle_bytes <= MEMORY_BYTES + REPLAY_BYTES + WORKING_BYTES
        assert is_quiet(daemon), daemon.log


def _memory_bytes(daemon: DaemonProcess, what: str) -> int:
    """As the kernel counts it: `VmRSS` now, `VmHWM` at its highest (proc_pid_status(5))."""
    assert daemon.process is not None
    text = Path(f"/proc/{daemon.process.pid}/status").read_text()
    found = re.search(rf"^{what}:\s+(\d+) kB$", text, re.MULTILINE)
    assert found
    return int(found[1]) * 1024
