"""What fakeredis answers otherwise than a server does, and what is answered in its place.

Decides from a command and a reply alone. Must never know connections. Seen with fakeredis 2.40; `tests/twins` holds
this against a real server.
"""

from typing import Any, Final, TypeAlias

from redis.exceptions import ResponseError

from wire.redis.answers import lacks_command

Part: TypeAlias = str | bytes | int | float
Words: TypeAlias = tuple[Part, ...]

_NO_KEY: Final = "requires the key to exist"


def name_of(words: Words) -> str:
    """The command's name."""
    first = words[0]
    # redis-py names some commands in two words.
    return (first.decode() if isinstance(first, bytes) else str(first)).split()[0].upper()


def question(words: Words) -> Words:
    """What to ask so that the same is meant as on a server."""
    if name_of(words) == "XPENDING" and len(words) > 4 and str(words[3]).upper() == "IDLE":
        # There idle means for longer than so many ms, on a server for so many at least.
        idle = int(words[4])
        return (*words[:3], *(("IDLE", idle - 1) if idle > 0 else ()), *words[5:])
    return words


def answer(words: Words, reply: Any) -> Any:
    """The reply that a server would give, where that is known."""
    name = name_of(words)
    if isinstance(reply, ResponseError):
        return _error(name, reply)
    if name in {"XREAD", "XREADGROUP"} and reply == []:
        return None
    return reply


def _error(name: str, error: ResponseError) -> ResponseError:
    if name == "XREADGROUP" and _NO_KEY in str(error):
        return ResponseError("NOGROUP No such key or consumer group in XREADGROUP with GROUP option")
    if lacks_command(str(error)):
        return ResponseError(f"ERR {name} cannot be had in memory: see the known limits of `memory_bus`")
    return error
