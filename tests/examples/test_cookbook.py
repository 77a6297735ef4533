"""The README's commands for redis-cli do what is said beside them, on a real server with a real daemon.

A shell reads each block, with its quotes, dates and variables; what it would hand to redis-cli is asked here.
"""

import asyncio
import json
import re
import subprocess
import time
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from simulator import AlpacaSimulator
from tests.examples.conftest import until
from tests.repo.tree import README
from tests.scenario.daemon import DaemonProcess
from tests.scenario.streams import KEYS, numbered, numbers, subscribed

SECTION: Final = README.split("\n## redis-cli cookbook\n", 1)[1].split("\n## ", 1)[0]
BLOCKS: Final = re.findall(r"```sh\n(.+?)```", SECTION, re.DOTALL)
HEAR: Final = r"""redis-cli() { printf '%s\037' "$@"; echo; }; """


def commands(block: str) -> list[list[str]]:
    """The words of each command of a block, as a shell hands them over."""
    done = subprocess.run(["bash", "-euc", HEAR + block], capture_output=True, text=True, check=True)
    found = [line.split("\037")[:-1] for line in done.stdout.splitlines()]
    assert all(words[:2] == ["-p", "6399"] for words in found), found
    return [words[2:] for words in found]


async def ask(redis: Redis, words: Sequence[str]) -> Any:
    """The server's answer; an error is one here as well."""
    return await redis.execute_command(*words)  # type: ignore[no-untyped-call]


def block_with(text: str) -> str:
    """The one block that has this in it."""
    (found,) = [str(block) for block in BLOCKS if text in block]
    return found


async def blocked(redis: Redis) -> bool:
    """Whether somebody waits for the next entry."""
    return int((await redis.info("clients"))["blocked_clients"]) > 0


async def test_symbols_are_added_removed_and_replaced(
    redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess
) -> None:
    """What is added is subscribed, what is removed is not; and a list that is replaced is never empty."""
    await subscribed(redis, vendor, "AAPL")
    add, remove, members, states, state = commands(block_with("SMEMBERS"))
    await ask(redis, add)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "TSLA", "NVDA"}, 30)
    await ask(redis, remove)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "TSLA"}, 30)
    assert set(await ask(redis, members)) == {"AAPL", "TSLA"}

    async def is_live() -> bool:
        return bool(json.loads(await ask(redis, state) or "{}").get("state") == "live")

    await until(is_live, 30)
    assert (await ask(redis, states)).keys() >= {"AAPL", "TSLA"}
    for words in commands(block_with("RENAME")):
        await ask(redis, words)
    await vendor.wait_for(lambda: vendor.symbols == {"AAPL", "MSFT"}, 30)
    assert set(await ask(redis, members)) == {"AAPL", "MSFT"}


async def test_streams_cache_events_and_status_are_read(
    redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess
) -> None:
    """The newest entries, the next ones, a range of venue time, the cache, and what operators look at."""
    await subscribed(redis, vendor, "AAPL")
    vendor.send(numbered("AAPL", 1, 5, base_ns=time.time_ns()))

    async def all_stored() -> bool:
        return len(await numbers(redis, "AAPL")) == 5

    await until(all_stored, 30)
    newest, following, length = commands(block_with("XREVRANGE quotes:stream"))
    assert len(await ask(redis, newest)) == 2
    assert await ask(redis, length) == 5
    # The quotes may be older than the five seconds of the example by now.
    (ranged,) = commands(block_with("XRANGE"))
    found = await ask(redis, [*ranged[:2], str(int(ranged[2]) - 60_000), *ranged[3:]])
    assert len(found) == 3
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(ask(redis, following))
        await until(lambda: blocked(redis), 4)
        vendor.send(numbered("AAPL", 6, 1, base_ns=time.time_ns()))
    assert waiting.result()
    one, several = commands(block_with("HMGET quotes:latest"))
    assert json.loads(await ask(redis, one))["S"] == "AAPL"
    assert len(await ask(redis, several)) == 3
    events, status = commands(block_with("quotes:events"))
    assert await ask(redis, events)

    async def is_live() -> bool:
        return bool((await ask(redis, status))["state"] == "live")

    await until(is_live, 30)


async def test_a_lease_is_taken_and_given_back_by_hand(
    redis: Redis, vendor: AlpacaSimulator, daemon: DaemonProcess
) -> None:
    """With it the symbol is subscribed, without it no more."""
    take, give_back, look = commands(block_with("ZADD"))
    await ask(redis, take)
    await vendor.wait_for(lambda: vendor.symbols == {"GME"}, 30)
    assert (await ask(redis, look))[0] in ("GME@notebook-1", ("GME@notebook-1", float(take[2])))
    await ask(redis, give_back)
    await vendor.wait_for(lambda: not vendor.symbols, 30)


def test_every_block_of_the_section_is_carried_out() -> None:
    """A block that is added to the README is added here."""
    ours = (
        "SMEMBERS",
        "RENAME",
        "XREVRANGE quotes:stream",
        "XRANGE",
        "HMGET quotes:latest",
        "quotes:events",
        "ZADD",
    )
    assert sorted(map(block_with, ours)) == sorted(BLOCKS)
    assert KEYS.symbols in SECTION
