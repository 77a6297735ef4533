"""Kinds of values that several settings share, and what may stand there.

Decides forms that pydantic does not know, or reads too generously. Must never know which setting a value is for.
"""

import re
from collections.abc import Callable
from typing import Annotated, Any, Final, TypeAlias

from pydantic import BeforeValidator, ByteSize
from pydantic_core import PydanticCustomError

_SIZE: Final = re.compile(r"\s*[+]?[0-9_]*[.]?[0-9]+\s*[A-Za-z]*\s*", re.ASCII)


def _plain(size: Any) -> Any:
    # pydantic's own pattern takes the digits of every script, and passes over what stands behind: 1,5GB was 1.
    if isinstance(size, str) and not _SIZE.fullmatch(size):
        raise PydanticCustomError("byte_size", "not a number of bytes")
    return size


Size: TypeAlias = Annotated[ByteSize, BeforeValidator(_plain)]
"""A number of bytes, with or without a unit."""


def one_of(*words: str) -> Callable[[str], str]:
    """A validator that takes these words, in capitals or not."""

    def check(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"is not one of {', '.join(words)}")
        return text.lower()

    return check


def http_address(address: str) -> str:
    """A validator that takes HOST:PORT."""
    host, _, port = address.rpartition(":")
    if not (host and port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 65535):
        raise ValueError("must be HOST:PORT, for example 127.0.0.1:9108")
    return address
