"""A text file that a human wrote: what it says, or in one sentence why it cannot be read.

Decides what is taken for text (UTF-8, with or without a byte order mark), and the words for everything else. Must
never know what the text is for, nor show any of it. Standard library alone: small commands read with it as well.
"""

import codecs
from pathlib import Path
from typing import Final

MAX_BYTES: Final = 1_048_576
"""Of settings or a key; whoever names a device or a tape by mistake is told at once."""
_UTF_32: Final = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE)
_UTF_16: Final = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


class UnreadableText(Exception):
    """The file cannot be read as text; the message is a clause that goes behind its name."""


def read_text(path: Path) -> str:
    """The text, without a byte order mark. Raises `UnreadableText`."""
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_BYTES + 1)
    except FileNotFoundError:
        raise UnreadableText("is not there") from None
    except IsADirectoryError:
        raise UnreadableText("is a folder; name the file in it") from None
    except PermissionError:
        raise UnreadableText("may not be read by this user; see its owner and mode") from None
    except (OSError, ValueError) as error:
        raise UnreadableText(f"cannot be read ({type(error).__name__}: {error})") from None
    if len(raw) > MAX_BYTES:
        raise UnreadableText(f"has more than {MAX_BYTES} bytes, so it is not the file that is meant")
    if raw.startswith(_UTF_32):
        raise UnreadableText("is UTF-32; save it as UTF-8")
    if raw.startswith(_UTF_16) or (len(raw) >= 2 and 0 in raw[:2] and raw[:2] != b"\0\0"):
        raise UnreadableText("is UTF-16, as some editors save it; save it as UTF-8")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise UnreadableText(f"has a byte in line {line} that is not UTF-8; save it as UTF-8") from None
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise UnreadableText(f"has a NUL character in line {line}, so it is no text")
    return text
