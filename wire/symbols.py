"""What may stand as a symbol, in the operators' set as on the vendor's wire.

Decides from the bytes alone. Must never know which symbols exist: that is the vendor's word.
"""

import re
from typing import Final, NewType

Symbol = NewType("Symbol", str)

MAX_SYMBOL_LENGTH: Final = 20

# US stock symbols as Alpaca spells them: AAPL, BRK.B, BAC.PRB, and digits in rights and escrow lines.
_SYMBOL = re.compile(r"[A-Z0-9]+(?:[.-][A-Z0-9]+)*")


class BadSymbol(ValueError):
    """A name that cannot be a symbol; the message is the reason, in words for an operator."""


def parse_symbol(raw: bytes | str) -> Symbol:
    """The symbol spelt by one set member, or `BadSymbol` with the reason and, where there is one, the remedy.

    Nothing is repaired on the way: a member and its stream carry the same name, so that SREM, XRANGE and HGET
    work with what SADD was given.
    """
    if isinstance(raw, bytes):
        if len(raw) > 4 * MAX_SYMBOL_LENGTH:
            raise BadSymbol(f"{len(raw)} bytes long; a symbol has at most {MAX_SYMBOL_LENGTH}")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise BadSymbol("not text (invalid UTF-8)") from None
    else:
        text = raw
    if _SYMBOL.fullmatch(text) and len(text) <= MAX_SYMBOL_LENGTH:
        return Symbol(text)
    raise BadSymbol(_why(text))


def _why(text: str) -> str:
    if not text:
        return "empty"
    if len(text) > MAX_SYMBOL_LENGTH:
        return f"{len(text)} characters long; a symbol has at most {MAX_SYMBOL_LENGTH}"
    if "*" in text:
        return "wildcards are not subscribed: name each symbol"
    candidate = text.strip().upper().replace("/", ".")
    if _SYMBOL.fullmatch(candidate) and text.isascii():
        kind = "has spaces around it" if candidate == text.strip() else "lower case"
        if "/" in text:
            kind = "a slash where Alpaca writes a dot"
        return f"{kind}; did you mean {candidate}?"
    odd = next((c for c in text if not re.fullmatch(r"[A-Za-z0-9.-]", c)), None)
    if odd is not None:
        return f"has a character that no symbol has (U+{ord(odd):04X})"
    return "dots and hyphens only stand between letters or digits"
