"""What Redis's refusal to write a lease means, in words with a remedy.

Decides from the error alone. Must never know which leases are held. Error codes as Redis sends them:
https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors.
"""

from redis.exceptions import NoPermissionError, OutOfMemoryError, ReadOnlyError, RedisError

from consumers.leases.book import Refusal
from consumers.reconnect import is_passing, is_wrong_type


def understand(error: RedisError, key: str) -> Refusal:
    """This error, answered to a command on the key of the leases."""
    text = " ".join(str(error).split())[:200]
    if isinstance(error, NoPermissionError):
        return Refusal(
            f"{text}; give this user +zadd +zrem +zremrangebyscore on ~{key} (deploy/acl has such a user), "
            "or pass lease=False",
            may_change=False,
        )
    if isinstance(error, ReadOnlyError):
        return Refusal(
            f"{text}; the server is a replica: connect to the primary, or pass lease=False", may_change=True
        )
    if isinstance(error, OutOfMemoryError):
        return Refusal(
            f"{text}; the server's memory is full: raise maxmemory, or keep less history", may_change=True
        )
    if is_wrong_type(error):
        return Refusal(
            f"{text}; {key} is no sorted set: delete it, another program made it", may_change=False
        )
    may_change = is_passing(error) or text.startswith("MISCONF")
    return Refusal(f"{text}; see the log of the server", may_change=may_change)
