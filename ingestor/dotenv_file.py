"""The file `.env`: what it sets, or in one sentence why it cannot be used.

Decides which lines are no settings, and says so with file and line: a line that is passed over would let a command
work with a default that nobody chose, in another namespace say. Must never show what stands there: it may be a key.
"""

import os
import re
from collections.abc import Mapping
from io import StringIO
from pathlib import Path
from typing import Final

from dotenv import load_dotenv
from dotenv.parser import Binding, parse_stream

from ingestor.text_file import UnreadableText, read_text

_OURS: Final = ("QUOTEBUS_", "APCA_", "ALPACA_")
_SWALLOWED: Final = re.compile(rf"[\r\n]\s*(?:export\s+)?(?:{'|'.join(_OURS)})\w+\s*=")
_LINE_END: Final = re.compile(r"\r\n|\n|\r")
_REMEDY: Final = "write it as NAME=value, with # before a comment"


class BadDotenv(Exception):
    """The file cannot be used; the message names it and the line, and holds nothing that stands there."""


def load(path: Path, environment: Mapping[str, str] = os.environ) -> None:
    """Put into the environment what the file sets and the environment does not. Raises `BadDotenv`."""
    try:
        text = read_text(path)
    except UnreadableText as reason:
        raise BadDotenv(f"{path.resolve()} {reason}") from None
    for binding in parse_stream(StringIO(text)):
        problem = _problem(binding, environment)
        if problem is not None:
            blank = binding.original.string[: -len(binding.original.string.lstrip()) or None]
            line = binding.original.line + len(_LINE_END.findall(blank))
            raise BadDotenv(f"{path.resolve()}, line {line}: {problem}")
    load_dotenv(stream=StringIO(text))


def _problem(binding: Binding, environment: Mapping[str, str]) -> str | None:
    written, name = binding.original.string.strip(), binding.key or ""
    is_ours = name.startswith(_OURS)
    if binding.error:
        _, _, value = written.partition("=")
        if value.lstrip().startswith(("'", '"')):
            return "its quotation mark is not closed, or something follows where it is; close it at the end"
        return f"it is no setting; {_REMEDY}"
    if "=" in name:
        return f"it is no setting; {_REMEDY}"
    if binding.value is None:
        # A name alone may stand for what the environment has; where it has nothing, nothing would be set.
        return f"it has no =; {_REMEDY}" if is_ours and name not in environment else None
    if _SWALLOWED.search(written) or (is_ours and _LINE_END.search(written)):
        return "its quotation mark is closed in a later line only; close it at the end of its own"
    return None
