"""`quotebus symbols`: the desired set, with a spelling check that SADD does not have.

Decides what is told to the operator. Must never talk to the daemon: the set and its states are on Redis.
"""

import contextlib
import json
import sys
from typing import Any, Final

from ingestor.commands.quick_redis import QuickRedis, RedisProblem
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
    return _edit("SADD", "added", "already there", list(symbols), redis_url, namespace)


def remove(names: list[str], redis_url: str, namespace: str) -> int:
    """SREM, as spelt and upper-cased, so that a misspelt member can be removed too."""
    members = list(dict.fromkeys([*names, *(name.strip().upper() for name in names)]))
    return _edit("SREM", "removed", "", members, redis_url, namespace)


def show(as_json: bool, redis_url: str, namespace: str) -> int:
    """Every desired member and every state, and how far its cached quote can be trusted, one per line."""
    try:
        keys = Keyspace(namespace)
        with QuickRedis(redis_url) as redis:
            members = {m.decode("utf-8", "backslashreplace") for m in redis.call("SMEMBERS", keys.symbols)}
            flat = redis.call("HGETALL", keys.subscriptions)
            states = {flat[i].decode(): flat[i + 1] for i in range(0, len(flat), 2)}
            names = sorted(members | states.keys())
            cached = _cached(redis, keys, names)
            status = redis.call("HMGET", keys.status, *STATUS_FIELDS)
            seconds, microseconds = redis.call("TIME")
    except BadNamespace as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    if not names:
        print("no symbols yet; add some with: quotebus symbols add AAPL", file=sys.stderr)
    now_ns = (int(seconds) * 1_000_000 + int(microseconds)) * 1_000
    judge = QualityJudge(now_ns, dict(zip(STATUS_FIELDS, status, strict=True)))
    rows = [
        _row(name, name in members, states.get(name), judge.judge(name, states.get(name), cached.get(name)))
        for name in names
    ]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    width = max((len(row["symbol"]) for row in rows), default=6)
    for row in rows:
        why = "; ".join(dict.fromkeys(filter(None, (row["reason"], row["quality_reason"]))))
        print(f"{row['symbol']:<{width}}  {row['state']:<9}  {row['quality']:<14}  {why}".rstrip())
    return 0


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


def _row(name: str, desired: bool, state: bytes | None, quality: Quality) -> dict[str, Any]:
    try:
        fields = json.loads(state) if state is not None else {}
        fields = fields if isinstance(fields, dict) else {"state": "unreadable"}
    except ValueError:
        fields = {"state": "unreadable"}
    return {
        "symbol": name,
        "desired": desired,
        "state": str(fields.get("state", "unseen")),
        "reason": fields.get("reason") if state else "no daemon has looked at it yet",
        "since": fields.get("since"),
        "quality": quality.level.value,
        "quality_reason": quality.reason,
        "quality_since": quality.since.isoformat() if quality.since else None,
        "quote_age_s": quality.quote_age_s,
    }


def _edit(command: str, done: str, rest: str, members: list[str], redis_url: str, namespace: str) -> int:
    try:
        with QuickRedis(redis_url) as redis:
            changed = redis.call(command, Keyspace(namespace).symbols, *members)
    except BadNamespace as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    unchanged = len(set(members)) - changed
    print(f"{done} {changed}" + (f", {unchanged} {rest}" if rest and unchanged else ""))
    return 0
