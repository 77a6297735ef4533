"""Whether this Redis can serve, asked once before anything is written.

Decides what a daemon needs of a server and its user, and lists all that is missing at once. Must never change
anything there: every command is queued in a transaction (https://redis.io/docs/latest/commands/multi/), which
checks that the command exists and the user's rights to it and to its keys, and then the transaction is discarded.

Nothing is asked unless `MULTI` was answered with `OK`, and the first answer that is neither `QUEUED` nor a refusal
ends it: then the server, or what stands before it, carries out what it should have queued. Even that would do no
harm, for each command is spelt so that it changes nothing: an id that no entry may have, a pair without its second
half, a field and a stream whose name can be no symbol's.
"""

import asyncio
import contextlib
from collections.abc import Callable
from typing import Final

import hiredis

from ingestor.journal import Journal
from ingestor.redis_link import LinkFailure, RedisAddress, RedisLink, Reply, WrongServer
from wire import Keyspace
from wire.redis.answers import PASSING, disabled, lacks_command

TIMEOUT_S: Final = 5.0
RETRY_S: Final = (0.1, 1.0)
NO_SYMBOL: Final = "ANY-"
"""Stands for any symbol where rights are asked about: one cannot end so, and no key or field has the name."""
_NO_ID: Final = "0-0"
"""Every server refuses an entry with this id, whatever the stream holds."""
_EVICTS_ANY: Final = "maxmemory_policy:allkeys"
_PURPOSES: Final = {
    "EVAL": "storing quotes",
    "EVALSHA": "storing quotes",
    "XADD": "storing quotes and events",
    "XINFO": "telling an entry that is stored from one that is refused",
    "XRANGE": "telling an entry that is stored from one that is refused",
    "XREVRANGE": "finding where a stream ends",
    "XTRIM": "bounding streams by age",
    "PERSIST": "keeping a stream that is wanted again",
    "EXPIRE": "forgetting a stream that nobody wants",
    "TTL": "forgetting a stream that nobody wants",
    "SMEMBERS": "reading the desired symbols",
    "ZRANGEBYSCORE": "reading the leases of strategies",
    "MULTI": "asking about rights without writing, and reading by strategies",
    "DISCARD": "asking about rights without writing",
}
_OTHERS: Final = "the cache, the daemon's status and its writer's position"
_OPTIONAL: Final = {
    "INFO": (("INFO",), "whether this server deletes streams when memory is short is not known"),
    "CLIENT": (("CLIENT", "ID"), "connections have no names, and changes of the desired set are seen later"),
}
"""What the daemon does without, and what is lost then."""


class NotPermitted(Exception):
    """The user lacks rights; the message lists every one."""


class CommandsDisabled(Exception):
    """The server does not have commands that the daemon needs; the message lists every one."""


class Unsuitable(Exception):
    """The server cannot hold the bus; the message says why, and what to use instead."""


def needed(keys: Keyspace) -> dict[str, tuple[str | int, ...]]:
    """Every command that a daemon sends, with the keys that it sends it for, by a name to show.

    Carried out instead of queued, none of them would change anything.
    """
    stream, writer = keys.stream(NO_SYMBOL), keys.writer
    odd = (NO_SYMBOL, "0", "without-value")
    commands: tuple[tuple[str | int, ...], ...] = (
        ("EVAL", "return 0", 3, writer, keys.latest, stream),
        ("EVALSHA", "0" * 40, 3, writer, keys.latest, stream),
        ("XADD", stream, _NO_ID, "q", "[]"),
        ("XADD", keys.events, _NO_ID, "kind", "started"),
        ("XINFO", "STREAM", stream),
        ("XRANGE", stream, "-", "+", "COUNT", 1),
        ("XREVRANGE", stream, "+", "-", "COUNT", 1),
        ("XTRIM", stream, "MINID", "~", _NO_ID),
        ("PERSIST", stream),
        ("EXPIRE", stream, 60),
        ("TTL", stream),
        ("SMEMBERS", keys.symbols),
        ("ZRANGEBYSCORE", keys.interest, "-inf", "+inf", "LIMIT", 0, 1),
        ("HGET", keys.latest, NO_SYMBOL),
        ("HMGET", keys.latest, NO_SYMBOL),
        ("HKEYS", keys.latest),
        ("HSET", keys.latest, *odd),
        ("HDEL", keys.latest, NO_SYMBOL),
        ("HSET", keys.status, *odd),
        ("HMGET", keys.status, "state"),
        ("HDEL", keys.status, NO_SYMBOL),
        ("HSET", keys.subscriptions, *odd),
        ("HKEYS", keys.subscriptions),
        ("HLEN", keys.subscriptions),
        ("HDEL", keys.subscriptions, NO_SYMBOL),
        ("HMGET", writer, "epoch"),
        ("HGET", writer, "began"),
        ("HSET", writer, *odd),
    )
    return {_name(command): command for command in commands}


def _name(command: tuple[str | int, ...]) -> str:
    if command[0] in ("EVAL", "EVALSHA"):
        return f"{command[0]} with keys {command[3]} {command[4]} {command[5]}"
    return " ".join(map(str, command[: 3 if command[0] == "XINFO" else 2]))


async def examine(
    address: RedisAddress,
    keys: Keyspace,
    journal: Journal,
    stop: asyncio.Event,
    note_trouble: Callable[[str | None], None] = lambda _: None,
) -> None:
    """Ask as soon as the server answers; returns at once when told to stop. `note_trouble` is told why it does not,
    and None once it does.

    Raises `NotPermitted`, `CommandsDisabled` and `Unsuitable`.
    """
    attempt = 0
    while not stop.is_set():
        try:
            link = await address.open("quotebus-rights")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    await _look_at_server(link, journal)
                    await _look_at_user(link, keys)
                note_trouble(None)
                return
            finally:
                link.abort("asked")
        except WrongServer as problem:
            raise Unsuitable(str(problem)) from None
        except (LinkFailure, TimeoutError) as failure:
            reason = str(failure) or f"{address!r} did not answer within {TIMEOUT_S:g} s"
            note_trouble(reason[:400])
            journal.note_rarely("redis_away", "examination", "error", reason=reason[:400])
        attempt += 1
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(RETRY_S[1], RETRY_S[0] * 2.0 ** min(attempt, 10))):
                await stop.wait()


async def _look_at_server(link: RedisLink, journal: Journal) -> None:
    info = None
    for name, (command, lost) in _OPTIONAL.items():
        reply = await link.call(*command)
        if isinstance(reply, hiredis.ReplyError) and lacks_command(str(reply)):
            journal.note("command_disabled", "warning", command=name, consequence=lost)
        elif name == "INFO" and isinstance(reply, bytes):
            info = reply
    if info is None:
        return  # no right to it: nothing that the daemon needs
    text = info.decode("utf-8", "replace")
    if _EVICTS_ANY in text:
        policy = text.partition("maxmemory_policy:")[2].split()[0]
        journal.note(
            "redis_evicts",
            "warning",
            policy=policy,
            remedy="streams may vanish when memory is short; set maxmemory-policy to noeviction",
        )


async def _look_at_user(link: RedisLink, keys: Keyspace) -> None:
    begun = await link.call("MULTI")
    if _refusal(begun).startswith("NOPERM"):
        # Without it nothing can be asked without being done; what is missing will show when it is needed.
        return
    _check_transaction("MULTI", begun, b"OK")
    refused, absent = [], {}
    for name, command in {"PING": ("PING",), **needed(keys)}.items():
        reply = await link.call(*command)
        refusal = _refusal(reply)
        if refusal.startswith("NOPERM"):
            refused.append(name)
        elif lacks_command(refusal):
            verb = str(command[0])
            absent[verb] = _PURPOSES.get(verb, _OTHERS)
        elif not refusal.startswith(PASSING):
            _check_transaction(name, reply, b"QUEUED")
    _check_transaction("DISCARD", await link.call("DISCARD"), b"OK")
    refused = [name for name in refused if name != "PING"]
    absent.pop("PING", None)
    problems = []
    if refused:
        problems.append(
            f"the Redis user of {keys.namespace!r} may not: {'; '.join(refused)}. "
            "Give it these rights (deploy/ has a file of users with all of them)"
        )
    if absent:
        raise CommandsDisabled("; ".join([disabled(absent), *problems]))
    if problems:
        raise NotPermitted(problems[0])


def _refusal(reply: Reply) -> str:
    """The text of an error reply; empty for any other."""
    return str(reply) if isinstance(reply, hiredis.ReplyError) else ""


def _check_transaction(name: str, reply: Reply, expected: bytes) -> None:
    """Raise unless the server goes on as with a transaction."""
    if reply == expected:
        return
    refusal = _refusal(reply)
    if refusal.startswith(PASSING):
        raise LinkFailure(f"{name} refused: {refusal}")
    if lacks_command(refusal):
        raise CommandsDisabled(disabled({name: _PURPOSES.get(name, _OTHERS)}))
    shown = refusal or (reply.decode("utf-8", "replace") if isinstance(reply, bytes) else repr(reply))
    raise CommandsDisabled(
        f"this Redis answers {name} with {shown[:80]!r} where a transaction has {expected.decode()}: it has no "
        "transactions, so rights cannot be asked about without writing, and strategies cannot read. Give the "
        "address of Redis itself, not of a proxy without MULTI"
    )
