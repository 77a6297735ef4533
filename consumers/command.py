"""What is asked of Redis, and what comes back: two types.

Decides nothing but their names. Must never know a connection: modules that only choose a command or read an answer
need not know one either.
"""

from typing import Any, TypeAlias

Command: TypeAlias = tuple[str | bytes | int, ...]
Reply: TypeAlias = Any
"""What hiredis made of a RESP2 reply: bytes, int, None, a list of these, or an exception for an error."""
