"""`quotebus symbols`: the desired set, with a spelling check that SADD does not have.

Decides what is told to the operator. Must never talk to the daemon: the set and its states are on Redis.
"""

import json
import sys
from typing import Any

from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from wire import BadNamespace, BadSymbol, Keyspace, parse_symbol


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
    """Every desired member and every state, one per line."""
    try:
        keys = Keyspace(namespace)
        with QuickRedis(redis_url) as redis:
            members = {m.decode("utf-8", "backslashreplace") for m in redis.call("SMEMBERS", keys.symbols)}
            flat = redis.call("HGETALL", keys.subscriptions)
    except BadNamespace as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 2
    except RedisProblem as problem:
        print(f"quotebus: {problem}", file=sys.stderr)
        return 1
    if not members and not flat:
        print("no symbols yet; add some with: quotebus symbols add AAPL", file=sys.stderr)
    states = {flat[i].decode(): json.loads(flat[i + 1]) for i in range(0, len(flat), 2)}
    rows = [_row(name, name in members, states.get(name, {})) for name in sorted(members | states.keys())]
    if as_json:
        print(json.dumps(rows, ensure_ascii=False))
        return 0
    width = max((len(row["symbol"]) for row in rows), default=6)
    for row in rows:
        print(f"{row['symbol']:<{width}}  {row['state']:<9}  {row['reason'] or ''}".rstrip())
    return 0


def _row(name: str, desired: bool, state: dict[str, Any]) -> dict[str, Any]:
    return {
        "symbol": name,
        "desired": desired,
        "state": state.get("state", "unseen"),
        "reason": state.get("reason") if state else "no daemon has looked at it yet",
        "since": state.get("since"),
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
