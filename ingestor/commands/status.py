"""`quotebus status`: how the daemon fares, in one screen.

Decides when a heartbeat is too old to be believed. Must never ask the daemon itself: what it says is on Redis.
"""

import json
import sys
import time
from datetime import datetime

from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from wire import HEARTBEAT_LIMIT_S, BadNamespace, Keyspace


def show(as_json: bool, redis_url: str, namespace: str) -> int:
    """0 with a live daemon, 1 without."""
    try:
        keys = Keyspace(namespace)
        with QuickRedis(redis_url) as redis:
            flat = redis.call("HGETALL", keys.status)
    except BadNamespace as error:
        print(f"quotebus: {error}", file=sys.stderr)
        return 2
    except RedisProblem as error:
        print(f"quotebus: {error}", file=sys.stderr)
        return error.exit_code
    fields = {flat[i].decode(): flat[i + 1].decode("utf-8", "replace") for i in range(0, len(flat), 2)}
    problem = _problem(fields)
    if as_json:
        print(json.dumps({**fields, "alive": problem is None, "problem": problem}, ensure_ascii=False))
    else:
        for name, value in fields.items():
            if value:
                print(f"{name:<18} {value}")
        print(f"{'alive':<18} {'yes' if problem is None else 'no: ' + problem}")
    return 0 if problem is None else 1


def _problem(fields: dict[str, str]) -> str | None:
    if not fields:
        return "no daemon has ever written here"
    if fields.get("state") == "stopped":
        return "the daemon was stopped"
    age_s = time.time_ns() / 1e9 - datetime.fromisoformat(fields["heartbeat"]).timestamp()
    if age_s > HEARTBEAT_LIMIT_S:
        return f"the last heartbeat is {age_s:.0f} s old"
    return None
