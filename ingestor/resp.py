"""How a command is spelt for Redis.

Decides bytes. Must never know what a command means. Source: RESP,
https://redis.io/docs/latest/develop/reference/protocol-spec/.
"""


def pack(*parts: str | bytes | int) -> bytes:
    """One command, ready to send."""
    out = [b"*%d\r\n" % len(parts)]
    out += [bulk(part) for part in parts]
    return b"".join(out)


def bulk(part: str | bytes | int) -> bytes:
    """One argument of a command."""
    data = part if isinstance(part, bytes) else str(part).encode()
    return b"$%d\r\n%b\r\n" % (len(data), data)
