"""In what the server in memory is known to differ from a real one, and why that is left so.

Each is named in the docstring of `consumers.testing.memory`, or is nothing that the library asks for.
"""

from typing import Any, Final

KNOWN: Final = {
    "wording": "errors are compared by their first word alone: nobody reads the rest but people",
    "idle": "how long something is idle is a time, and no two servers take the same",
    "order of members": "XPENDING names members in the order of their names on a server, in no order in memory",
    "order of groups": "XINFO GROUPS lists them by name on a server; the library looks for its own",
    "deleted and pending": "XAUTOCLAIM names a pending entry that the stream lost at once on a server, in memory "
    "when it has been idle for as long as asked: until then it counts as pending, and no worker is "
    "told of the loss",
    "half a millisecond": "a reader of a server takes it on trust that nothing is trimmed so shortly after an "
    "answer, and tells later when it was; in memory it takes nothing on trust; so each deed comes later than that",
    "radix tree": "XINFO STREAM tells of a server's memory, which the library does not look at",
    "inactive": "when a member last did something is kept apart since Redis 7.2 only",
    "lag of a group": "Redis versions differ in XINFO GROUPS lag; the library counts for itself",
}


def error_of(error: Exception) -> str:
    """An error without its wording."""
    return f"error {str(error).split()[0]}"


def stream_facts(reply: Any) -> Any:
    """Of XINFO STREAM what the library reads."""
    fields = dict(zip(reply[::2], reply[1::2], strict=True))
    names = (
        b"length",
        b"last-generated-id",
        b"first-entry",
        b"entries-added",
        b"max-deleted-entry-id",
        b"groups",
    )
    return {name: fields.get(name) for name in names}


def group_facts(reply: Any) -> Any:
    """Of XINFO GROUPS what the library reads."""
    names = (b"name", b"consumers", b"pending", b"last-delivered-id", b"entries-read")
    groups = [dict(zip(group[::2], group[1::2], strict=True)) for group in reply]
    return sorted(
        ({name: group.get(name) for name in names} for group in groups), key=lambda its: its[b"name"]
    )


def without_idle(reply: Any) -> Any:
    """XPENDING with a range, without the times."""
    return [[entry_id, owner, times] for entry_id, owner, _, times in reply]


def sorted_members(reply: Any) -> Any:
    """XPENDING without a range, its members by name."""
    count, first, last, members = reply
    return [count, first, last, sorted([name, int(held)] for name, held in members or [])]
