"""Whether this Redis can serve, asked once before anything is written.

Decides what a daemon needs of a server and its user, and lists all that is missing at once. Must never change
anything there: every command is queued in a transaction (https://redis.io/docs/latest/commands/multi/), which
checks the user's rights to it and to its keys, and then the transaction is discarded.
"""

import asyncio
import contextlib
from typing import Final

import hiredis

from ingestor.journal import Journal
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink, Reply
from wire import Keyspace

TIMEOUT_S: Final = 5.0
RETRY_S: Final = (0.1, 1.0)
_EVICTS_ANY: Final = "maxmemory_policy:allkeys"


class NotPermitted(Exception):
    """The user lacks rights; the message lists every one."""


class Unsuitable(Exception):
    """The server cannot hold the bus; the message says why, and what to use instead."""


def needed(keys: Keyspace) -> dict[str, tuple[str | int, ...]]:
    """Every command that a daemon sends, with keys as it sends them, by a name to show."""
    stream, writer = keys.stream("AAPL"), keys.writer
    commands: tuple[tuple[str | int, ...], ...] = (
        ("EVAL", "return 0", 3, writer, keys.latest, stream),
        ("EVALSHA", "0" * 40, 3, writer, keys.latest, stream),
        ("XADD", stream, "1-1", "q", "[]"),
        ("XADD", keys.events, "*", "kind", "started"),
        ("XINFO", "STREAM", stream),
        ("XRANGE", stream, "-", "+"),
        ("XREVRANGE", stream, "+", "-"),
        ("XTRIM", stream, "MINID", "~", "1"),
        ("PERSIST", stream),
        ("EXPIRE", stream, 60),
        ("TTL", stream),
        ("SMEMBERS", keys.symbols),
        ("ZRANGEBYSCORE", keys.interest, "-inf", "+inf"),
        ("HGET", keys.latest, "AAPL"),
        ("HMGET", keys.latest, "AAPL"),
        ("HKEYS", keys.latest),
        ("HSET", keys.latest, "AAPL", "{}"),
        ("HDEL", keys.latest, "AAPL"),
        ("HSET", keys.status, "state", "starting"),
        ("HMGET", keys.status, "state"),
        ("HDEL", keys.status, "standby"),
        ("HSET", keys.subscriptions, "AAPL", "{}"),
        ("HKEYS", keys.subscriptions),
        ("HLEN", keys.subscriptions),
        ("HDEL", keys.subscriptions, "AAPL"),
        ("HMGET", writer, "epoch"),
        ("HGET", writer, "began"),
        ("HSET", writer, "epoch", 1),
    )
    return {_name(command): command for command in commands}


def _name(command: tuple[str | int, ...]) -> str:
    if command[0] in ("EVAL", "EVALSHA"):
        return f"{command[0]} with keys {command[3]} {command[4]} {command[5]}"
    return " ".join(map(str, command[: 3 if command[0] == "XINFO" else 2]))


async def examine(address: RedisAddress, keys: Keyspace, journal: Journal, stop: asyncio.Event) -> None:
    """Ask as soon as the server answers; returns at once when told to stop.

    Raises `NotPermitted` and `Unsuitable`.
    """
    attempt = 0
    while not stop.is_set():
        try:
            link = await address.open("quotebus-rights")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await _look_at_server(link, journal)
                    await _look_at_user(link, keys)
                return
            finally:
                link.abort("asked")
        except (LinkFailure, TimeoutError) as failure:
            reason = str(failure) or f"{address!r} does not answer"
            journal.note_rarely("redis_away", "examination", "error", reason=reason[:200])
        attempt += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(RETRY_S[1], RETRY_S[0] * 2.0 ** min(attempt, 10))):
                await stop.wait()


async def _look_at_server(link: RedisLink, journal: Journal) -> None:
    info = await link.call("INFO")
    if not isinstance(info, bytes):
        return  # no right to it: nothing that the daemon needs
    text = info.decode("utf-8", "replace")
    if "cluster_enabled:1" in text:
        raise Unsuitable(
            "this server is a node of a Redis Cluster, where the keys of one call lie on several nodes; "
            "use a single server, with replicas if you like"
        )
    if _EVICTS_ANY in text:
        policy = text.partition("maxmemory_policy:")[2].split()[0]
        journal.note(
            "redis_evicts",
            "warning",
            policy=policy,
            remedy="streams may vanish when memory is short; set maxmemory-policy to noeviction",
        )


async def _look_at_user(link: RedisLink, keys: Keyspace) -> None:
    missing = []
    if _is_refused(reply := await link.call("MULTI")):
        # Without it nothing can be asked without being done; what is missing will show when it is needed.
        return
    for name, command in needed(keys).items():
        if _is_refused(reply := await link.call(*command)):
            missing.append(name)
    _ = reply
    await link.call("DISCARD")
    if missing:
        raise NotPermitted(
            f"the Redis user of {keys.namespace!r} may not: {'; '.join(missing)}. "
            "Give it these rights (deploy/ has a file of users with all of them)"
        )


def _is_refused(reply: Reply) -> bool:
    return isinstance(reply, hiredis.ReplyError) and "NOPERM" in str(reply)
