"""Random commands of those that the library sends, from a seed.

Decides which, with which arguments. Must never know which server answers, nor how.
"""

import random
from collections.abc import Callable, Iterator
from typing import Any, Final

from tests.twins import limits

Command = tuple[str | int, ...]
KEYS: Final = ("s:1", "s:2")
GROUPS: Final = ("g", "h")
MEMBERS: Final = ("a", "b", "c")


class Commands:
    """A run of commands on two streams with two groups, a hash and a sorted set."""

    def __init__(self, seed: int) -> None:
        self._random: Final = random.Random(seed)
        self._ids: Final[dict[str, list[str]]] = {key: [] for key in KEYS}
        self._ms = 1_000

    def take(self, count: int) -> Iterator[tuple[Command, Callable[[Any], Any]]]:
        """So many commands, each with how its reply is to be compared."""
        kinds: list[tuple[int, Callable[[], tuple[Command, Callable[[Any], Any]]]]] = [
            (30, self._add),
            (6, self._trim),
            (3, self._delete_entries),
            (2, self._delete),
            (1, self._rename),
            (12, self._read),
            (8, self._range),
            (8, self._look),
            (8, self._make_group),
            (20, self._read_group),
            (14, self._ack),
            (8, self._pending),
            (8, self._claim),
            (3, self._end_member),
            (6, self._hash),
            (6, self._lease),
            (1, self._spoil),
        ]
        makers = [maker for _, maker in kinds]
        weights = [weight for weight, _ in kinds]
        for _ in range(count):
            yield self._random.choices(makers, weights)[0]()

    def _any(self, *choices: Any) -> Any:
        return self._random.choice(choices)

    def _key(self) -> str:
        return str(self._random.choice(KEYS))

    def _id(self, key: str) -> str:
        """The id of an entry, there or gone, or one that never was."""
        ids = self._ids[key]
        return self._random.choice(ids[-12:]) if ids and self._random.random() < 0.9 else f"{self._ms}-7"

    def _add(self) -> tuple[Command, Callable[[Any], Any]]:
        key = self._key()
        if self._random.random() < 0.9:
            self._ms += self._random.randrange(3)
        entry_id = f"{self._ms}-{self._random.randrange(4)}"
        self._ids[key].append(entry_id)
        bound: Command = self._any((), (), ("MAXLEN", "~", 5), ("MAXLEN", 4), ("MINID", self._ms - 3))
        return ("XADD", key, *bound, entry_id, "q", "[1]"), same

    def _trim(self) -> tuple[Command, Callable[[Any], Any]]:
        return ("XTRIM", self._key(), "MAXLEN", self._any(0, 1, 2, 5)), same

    def _delete_entries(self) -> tuple[Command, Callable[[Any], Any]]:
        key = self._key()
        return ("XDEL", key, self._id(key), self._id(key)), same

    def _delete(self) -> tuple[Command, Callable[[Any], Any]]:
        return ("DEL", self._key()), same

    def _rename(self) -> tuple[Command, Callable[[Any], Any]]:
        return ("RENAME", *self._any(KEYS, KEYS[::-1])), same

    def _spoil(self) -> tuple[Command, Callable[[Any], Any]]:
        return ("SET", self._key(), "x"), same

    def _read(self) -> tuple[Command, Callable[[Any], Any]]:
        ids = [self._any("0-0", self._id(key)) for key in KEYS]
        return ("XREAD", "COUNT", self._any(1, 3, 100), "STREAMS", *KEYS, *ids), same

    def _range(self) -> tuple[Command, Callable[[Any], Any]]:
        key = self._key()
        low, high = self._id(key), self._id(key)
        return self._any(
            ("XRANGE", key, low, low),
            ("XRANGE", key, f"({low}", high, "COUNT", 5),
            ("XRANGE", key, "-", "+", "COUNT", 3),
            ("XREVRANGE", key, "+", "-", "COUNT", 1),
            ("XLEN", key),
        ), same

    def _look(self) -> tuple[Command, Callable[[Any], Any]]:
        if self._random.random() < 0.5:
            return ("XINFO", "STREAM", self._key()), limits.stream_facts
        return ("XINFO", "GROUPS", self._key()), limits.group_facts

    def _make_group(self) -> tuple[Command, Callable[[Any], Any]]:
        key = self._key()
        group, entry_id = self._any(*GROUPS), self._any("0-0", "$", self._id(key))
        read: Command = self._any((), (), ("ENTRIESREAD", self._any(0, 2, 5)))
        if self._random.random() < 0.12:
            return ("XGROUP", "DESTROY", key, group), same
        if self._random.random() < 0.12:
            return ("XGROUP", "SETID", key, group, entry_id, *read), same
        return ("XGROUP", "CREATE", key, group, entry_id, *read), same

    def _read_group(self) -> tuple[Command, Callable[[Any], Any]]:
        keys = self._any(KEYS[:1], KEYS[1:], KEYS)
        ids = [self._any(">", ">", ">", "0-0")] * len(keys)
        member = ("GROUP", self._any(*GROUPS), self._any(*MEMBERS))
        return ("XREADGROUP", *member, "COUNT", self._any(1, 3, 100), "STREAMS", *keys, *ids), same

    def _ack(self) -> tuple[Command, Callable[[Any], Any]]:
        key = self._key()
        return ("XACK", key, self._any(*GROUPS), self._id(key), self._id(key)), same

    def _pending(self) -> tuple[Command, Callable[[Any], Any]]:
        key, group = self._key(), self._any(*GROUPS)
        start = self._any("-", "0-0", self._id(key), f"({self._id(key)}")
        member: Command = self._any((), (self._any(*MEMBERS),))
        if self._random.random() < 0.3:
            return ("XPENDING", key, group), limits.sorted_members
        idle: Command = self._any((), (), ("IDLE", self._any(0, 100_000)))
        return ("XPENDING", key, group, *idle, start, "+", self._any(2, 100), *member), limits.without_idle

    def _claim(self) -> tuple[Command, Callable[[Any], Any]]:
        key, group, member = self._key(), self._any(*GROUPS), self._any(*MEMBERS)
        just: Command = self._any((), ("JUSTID",))
        if self._random.random() < 0.5:
            # Not longer: see the limit "deleted and pending".
            idle = 0
            start = self._any("0-0", self._id(key))
            return ("XAUTOCLAIM", key, group, member, idle, start, "COUNT", self._any(1, 100), *just), same
        options = self._any(just, ("IDLE", 90_000, "JUSTID"))
        return ("XCLAIM", key, group, member, 0, self._id(key), self._id(key), *options), same

    def _end_member(self) -> tuple[Command, Callable[[Any], Any]]:
        return ("XGROUP", "DELCONSUMER", self._key(), self._any(*GROUPS), self._any(*MEMBERS)), same

    def _hash(self) -> tuple[Command, Callable[[Any], Any]]:
        field = self._any("A", "B", "C")
        return self._any(
            ("HSET", "h:1", field, self._any("1", "2")),
            ("HGET", "h:1", field),
            ("HMGET", "h:1", "A", "B", "D"),
            ("HDEL", "h:1", field),
        ), same

    def _lease(self) -> tuple[Command, Callable[[Any], Any]]:
        member = self._any("A@x", "B@x", "A@y")
        return self._any(
            ("ZADD", "z:1", self._any(1, 2, 3), member),
            ("ZADD", "z:1", "GT", "CH", self._any(1, 2, 3), member),
            ("ZREM", "z:1", member),
            ("ZRANGE", "z:1", 0, -1, "WITHSCORES"),
            ("ZRANGEBYSCORE", "z:1", 2, "+inf"),
            ("ZSCORE", "z:1", member),
        ), same


def same(reply: Any) -> Any:
    """The reply as it is."""
    return reply
