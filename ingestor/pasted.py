"""What is wrong with a key or a secret, as people paste them.

Decides what cannot be part of one, and says so with the remedy. Must never show any of it, nor know where it came
from. Alpaca's keys are letters and digits, its secrets too, with a few signs of base64 at most.
"""

from typing import Final

_QUOTES: Final = "\"'`\u201c\u201d\u201e\u2018\u2019\u00ab\u00bb"
_BRACKETS: Final = {"<": ">", "{": "}", "[": "]", "(": ")"}
_REMEDY: Final = "paste it as Alpaca shows it"


def complaint(value: str, variable: str) -> str | None:
    """Why this value of the variable is no key, or None. The end of a line, as files have it, is not looked at."""
    value = value.strip("\r\n")
    if not value.strip():
        return f"has nothing but blanks; {_REMEDY}"
    if "\ufeff" in value:
        return "has a byte order mark before or within it; save the file as UTF-8 without BOM"
    if value != value.strip():
        return f"has blanks before or after it; {_REMEDY}"
    if value[0] in _QUOTES or value[-1] in _QUOTES:
        return "has quotation marks around it, which nobody takes away here; leave them out"
    if _BRACKETS.get(value[0]) == value[-1]:
        return f"still is a placeholder in {value[0]}…{value[-1]}; {_REMEDY}"
    if value.startswith((f"{variable}=", "export ")):
        return "begins with the name of a variable; leave the value alone"
    if any(character.isspace() for character in value):
        return f"has a blank or a line break within it; {_REMEDY}"
    if not (value.isascii() and value.isprintable()):
        return f"has a character that no key has; {_REMEDY}"
    return None
