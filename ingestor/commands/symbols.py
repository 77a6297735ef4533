"""`quotebus symbols`: the desired set, with a spelling check that SADD does not have.

Decides what is told to the operator. Must never talk to the daemon: the set and its states are on Redis.
"""

import contextlib
import json
import math
import sys
from collections.abc import Callable
from typing import Any, Final

import hiredis

from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from ingestor.commands.terminal import harmless
from ingestor.subscriptions.desired import shown
from wire import (
    STATUS_FIELDS,
    BadEntry,
    BadNamespace,
    BadSymbol,
    Keyspace,
    Quality,
    QualityJudge,
    decode_latest,
    parse_symbol,
)

ASKED_AT_ONCE: Final = 1000
CONSUMERS_SHOWN: Final = 3
"""Per line; `--json` has all."""
MAX_SECONDS_SHOWN: Final = 1_000_000_000


def add(names: list[str], redis_url: str, namespace: str) -> int:
    """SADD, after upper-casing; refuses all when one of them cannot be a symbol."""
    symbols, problems = [], []
    for name in names:
        try:
            symbols.append(parse_symbol(name.strip().upper()))
        except BadSymbol as problem:
            problems.append(f"{name!r}: {problem}")
    if problems:
        print("quotebus: nothing was added:\n  " + "\n  ".join(problems), file=sys.stderr)
        return 2

    def change(redis: QuickRedis, key: str) -> str:
        added = redis.call("SADD", key, *symbols)
        there = len(set(symbols)) - added
        return f"added {added}" + (f", {there} already there" if there else "")

    return _edit(change, redis_url, namespace)


def remove(names: list[str], redis_url: str, namespace: str) -> int:
    """SREM, as spelt if that is a member, so that a misspelt one can be removed; else upper-cased."""

    def change(redis: QuickRedis, key: str) -> str:
        # A misspelt member must not take the one that was meant with it.
        members = [name if redis.call("SISMEMBER", key, name) else name.strip().upper() for name in names]
        return f"removed {redis.call('SREM', key, *members)}"

    return _edit(change, redis_url, namespace)


def show(as_json: bool, redis_url: str, namespace: str) -> int:
    """Every symbol that is wanted or has a state, who leases it, and how far its cached quote can be trusted."""
    try:
        keys = Keyspace(namespace)
        with QuickRedis(redis_url) as redis:
            members = {_name(member): member for member in redis.call("SMEMBERS", keys.symbols)}
            flat = redis.call("HGETALL", keys.subscriptions)
            texts = (name.decode("utf-8", "backslashreplace") for name in flat[::2])
            states = dict(zip(texts, flat[1::2], strict=True))
            seconds, microseconds = redis.call("TIME")
            now_ns = (int(seconds) * 1_000_000 + int(microseconds)) * 1_000
            leases = _leases(redis, keys, now_ns // 1_000_000)
            names = sorted(members | states.keys() | leases.keys())
            cached = _cached(redis, keys, names)
            status = redis.call("HMGET", keys.status, *STATUS_FIELDS)
    except BadNamespace as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return problem.exit_code
    if not names:
        print("no symbols yet; add some with: quotebus symbols add AAPL", file=sys.stderr)
    judge = QualityJudge(now_ns, dict(zip(STATUS_FIELDS, status, strict=True)))
    rows = [
        _row(name, members.get(name), states.get(name), judge.judge(name, states.get(name), cached.get(name)))
        | {"consumers": leases.get(name, [])}
        for name in names
    ]
    if as_json:
        # ASCII alone: members are anybody's, and no byte of them may act on a terminal.
        print(json.dumps(rows))
        return 0
    names_shown = [shown(row["symbol"].encode("utf-8", "backslashreplace")) for row in rows]
    width = max(map(len, names_shown), default=6)
    for name, row in zip(names_shown, rows, strict=True):
        own, trust = (harmless(reason or "") for reason in (row["reason"], row["quality_reason"]))
        # What the daemon says of the symbol is often a part of why its quote is not trusted.
        why = "; ".join(filter(None, ("" if own in trust else own, trust, _holders(row))))
        print(f"{name:<{width}}  {harmless(row['state']):<9}  {row['quality']:<14}  {why}".rstrip())
    return 0


def _leases(redis: QuickRedis, keys: Keyspace, now_ms: int) -> dict[str, list[dict[str, Any]]]:
    """Who leases each symbol, and for how many seconds from now, the longest first."""
    (reply,) = redis.call_all(("ZRANGEBYSCORE", keys.interest, now_ms, "+inf", "WITHSCORES"))
    if isinstance(reply, hiredis.ReplyError):
        print(f"quotebus: who leases what cannot be read: {reply}", file=sys.stderr)
        return {}
    found: dict[str, list[dict[str, Any]]] = {}
    for member, score in zip(reply[-2::-2], reply[-1::-2], strict=True):
        name, _, consumer = member.rpartition(b"@")
        # The daemon shows what is no symbol whole.
        symbol = _name(name or member, member)
        left_s = round((float(score) - now_ms) / 1000, 1) if float(score) != math.inf else None
        found.setdefault(symbol, []).append(
            {"id": consumer.decode("utf-8", "backslashreplace") if name else "", "seconds_left": left_s}
        )
    return found


def _name(member: bytes, whole: bytes | None = None) -> str:
    """The symbol, or under what name the daemon refuses what is none."""
    try:
        return parse_symbol(member)
    except BadSymbol:
        return shown(member if whole is None else whole)


def _holders(row: dict[str, Any]) -> str:
    """Who leases a symbol, in words, the longest lease first."""
    if not row["consumers"]:
        return ""
    first = [
        shown(holder["id"].encode("utf-8", "backslashreplace")) + _left(holder["seconds_left"])
        for holder in row["consumers"][:CONSUMERS_SHOWN]
    ]
    more = len(row["consumers"]) - len(first)
    return (
        ("leased by " if row["desired"] else "only leased, by ")
        + ", ".join(first)
        + (f" and {more} more" if more else "")
    )


def _left(seconds: float | None) -> str:
    if seconds is None:
        return " (for ever)"
    return f" ({seconds:.0f} s)" if seconds < MAX_SECONDS_SHOWN else f" (more than {MAX_SECONDS_SHOWN} s)"


def _cached(redis: QuickRedis, keys: Keyspace, names: list[str]) -> dict[str, int]:
    """When the cached quote of each of these was received, unix nanoseconds; what is unreadable is left out."""
    found: dict[str, int] = {}
    for start in range(0, len(names), ASKED_AT_ONCE):
        some = names[start : start + ASKED_AT_ONCE]
        for name, value in zip(some, redis.call("HMGET", keys.latest, *some), strict=True):
            if value is not None:
                with contextlib.suppress(BadEntry):
                    quote = decode_latest(name, value)
                    found[name] = quote.received_ns or quote.time_ns
    return found


def _row(name: str, member: bytes | None, state: bytes | None, quality: Quality) -> dict[str, Any]:
    try:
        fields = json.loads(state) if state is not None else {}
        fields = fields if isinstance(fields, dict) else {"state": "unreadable"}
    except ValueError:
        fields = {"state": "unreadable"}
    return {
        "symbol": name,
        "member": None if member is None else member.decode("utf-8", "backslashreplace"),
        "desired": member is not None,
        "state": str(fields.get("state", "unseen")),
        "reason": _reason(fields.get("reason")) if state else "no daemon has looked at it yet",
        "since": fields.get("since"),
        "quality": quality.level.value,
        "quality_reason": quality.reason,
        "quality_since": quality.since.isoformat() if quality.since else None,
        "quote_age_s": quality.quote_age_s,
    }


def _reason(value: object) -> str | None:
    return None if value is None else str(value)


def _edit(change: Callable[[QuickRedis, str], str], redis_url: str, namespace: str) -> int:
    """Change the desired set, and print what became of it."""
    try:
        with QuickRedis(redis_url) as redis:
            done = change(redis, Keyspace(namespace).symbols)
    except BadNamespace as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return problem.exit_code
    print(done)
    return 0
