"""What a server's refusals mean, in words that are the same wherever they are shown.

Decides from the text of an error reply, with or without its leading `ERR`. Must never know who asked. How servers
and hosted services put it: https://redis.io/docs/latest/develop/reference/protocol-spec/#simple-errors, and for a
command that `rename-command` took away, "unknown command" of Redis and Valkey.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

CLUSTER_NODE: Final = (
    "this server is a node of a Redis Cluster, where the keys of one call lie on several nodes; "
    "use a single server, with replicas if you like"
)
"""What every door says alike, until clusters are served."""
SENTINEL: Final = (
    "this is a Sentinel, which watches servers and holds no data; give the address of the primary, "
    "or of a proxy or a name that follows it (SENTINEL GET-MASTER-ADDR-BY-NAME tells where it is)"
)
FULL: Final = "max number of clients"
"""In the answer of a server that has no place for a connection, to whatever that sends first."""
PASSING: Final = (
    "LOADING",
    "BUSY",
    "MASTERDOWN",
    "CLUSTERDOWN",
    "TRYAGAIN",
    "READONLY",
    "OOM",
    "MISCONF",
    "NOREPLICAS",
    "UNBLOCKED",
)
"""Codes of states that pass, and say nothing of a command or a right."""

_MISSING: Final = re.compile(
    r"(?:ERR )?(?:.{0,40}\b)?(?:unknown (?:sub)?command|unsupported command"
    r"|command (?:is )?(?:not (?:available|supported|allowed|permitted)|disabled))\b",
    re.IGNORECASE,
)
_REDIRECTED: Final = ("MOVED ", "ASK ", "CROSSSLOT")
_NOT_IN_CLUSTER: Final = "not allowed in cluster mode"


def lacks_command(refusal: str) -> bool:
    """Whether the server does not have the command at all: disabled, renamed, or none of this server's."""
    return not refusal.startswith((*PASSING, "NOPERM")) and _MISSING.match(refusal) is not None


def tells_of_cluster(refusal: str) -> bool:
    """Whether only a node of a cluster answers so."""
    return refusal.startswith(_REDIRECTED) or _NOT_IN_CLUSTER in refusal


def disabled(commands: Mapping[str, str]) -> str:
    """What to say of commands that the server lacks: each with what needs it, and the remedy."""
    listed = "; ".join(f"{command} ({purpose})" for command, purpose in commands.items())
    return (
        f"this Redis does not have {listed}: disabled or renamed there. Take the rename-command lines out of its "
        "configuration, or ask who runs it to allow them; no user's rights can bring them back"
    )


def unusable_kind(hello: Any) -> str | None:
    """Why a server of this kind cannot hold the bus, by its answer to HELLO, or None.

    HELLO needs no right (https://redis.io/docs/latest/commands/hello/); whatever else answers, such as a proxy
    that does not know it, tells nothing.
    """
    if not isinstance(hello, Sequence) or isinstance(hello, str | bytes):
        return None
    facts = dict(zip(hello[::2], hello[1::2], strict=False)) if _is_flat(hello) else {}
    match facts.get(b"mode", facts.get("mode")):
        case b"cluster" | "cluster":
            return CLUSTER_NODE
        case b"sentinel" | "sentinel":
            return SENTINEL
    return None


def _is_flat(hello: Sequence[Any]) -> bool:
    return all(isinstance(name, str | bytes) for name in hello[::2])
