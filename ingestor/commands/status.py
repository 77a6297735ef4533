"""`quotebus status`: how the daemon fares, in one screen.

Decides when a heartbeat is too old to be believed. Must never ask the daemon itself: what it says is on Redis.
"""

import json
import sys
import time

from ingestor.commands.quick_redis import QuickRedis, RedisProblem
from ingestor.commands.terminal import harmless
from wire import HEARTBEAT_LIMIT_S, BadNamespace, Keyspace
from wire.quality import time_ns_of


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
    texts = [piece.decode("utf-8", "replace") for piece in flat]
    fields = dict(zip(texts[::2], texts[1::2], strict=True))
    problem = _problem(fields)
    if as_json:
        # ASCII alone: the fields may be anybody's, and no byte of them may act on a terminal.
        print(json.dumps({**fields, "alive": problem is None, "problem": problem}))
    else:
        for name, value in fields.items():
            if value:
                print(f"{harmless(name):<18} {harmless(value)}")
        print(f"{'alive':<18} {'yes' if problem is None else 'no: ' + problem}")
    return 0 if problem is None else 1


def _problem(fields: dict[str, str]) -> str | None:
    if not fields:
        return "no daemon has ever written here"
    if fields.get("state") == "stopped":
        return "the daemon was stopped"
    beat_ns = time_ns_of(fields.get("heartbeat"))
    if beat_ns is None:
        return "the daemon's heartbeat is not readable"
    age_s = (time.time_ns() - beat_ns) / 1e9
    if age_s > HEARTBEAT_LIMIT_S:
        return f"the last heartbeat is {age_s:.0f} s old"
    if age_s < -HEARTBEAT_LIMIT_S:
        return f"the daemon's heartbeat lies {-age_s:.0f} s ahead of this machine's clock"
    return None
