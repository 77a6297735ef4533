"""What may stand as a symbol, in the operators' set as on the vendor's wire.

Decides from the text alone: the shape of a symbol, and that a name of something else than a US stock is none. Must
never know which symbols exist: that is the vendor's word. `wire.spellings` finds what was probably meant.
"""

import re
from typing import Final, NewType

from wire.spellings import is_above_suspicion, meant, other_instrument, several, tidy

Symbol = NewType("Symbol", str)

MAX_SYMBOL_LENGTH: Final = 20
_MAX_LOOKED_AT: Final = 64
"""Of a longer text nothing is guessed."""

# US stock symbols as Alpaca spells them: AAPL, BRK.B, BAC.PRB, and digits in rights and escrow lines.
_SYMBOL: Final = re.compile(r"[A-Z0-9]+(?:\.[A-Z0-9]+)*")
_WORD: Final = re.compile(r"[A-Z0-9]+(?:[.-][A-Z0-9]+)*")


class BadSymbol(ValueError):
    """A name that cannot be a symbol; the message is the reason, in words for an operator."""


def parse_symbol(raw: bytes | str) -> Symbol:
    """The symbol spelt by one set member, or `BadSymbol` with the reason and, where there is one, the remedy.

    Nothing is repaired on the way: a member and its stream carry the same name, so that SREM, XRANGE and HGET
    work with what SADD was given.
    """
    if isinstance(raw, bytes):
        if len(raw) > 4 * _MAX_LOOKED_AT:
            raise BadSymbol(f"{len(raw)} bytes long; a symbol has at most {MAX_SYMBOL_LENGTH}")
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            raise BadSymbol("not text (invalid UTF-8)") from None
    else:
        text = raw
    if _SYMBOL.fullmatch(text) and len(text) <= MAX_SYMBOL_LENGTH:
        if is_above_suspicion(text) or (why := _why_not(text)) is None:
            return Symbol(text)
        raise BadSymbol(why)
    raise BadSymbol(_why(text))


def is_word(text: str) -> bool:
    """Whether this has the shape of a name, whatever it names: all that a vendor's parser looks at."""
    return len(text) <= MAX_SYMBOL_LENGTH and _WORD.fullmatch(text) is not None


def _why_not(text: str) -> str | None:
    """Why a text in the shape of a symbol is none all the same."""
    if kind := other_instrument(text):
        return kind
    guess = meant(text)
    return None if guess is None else _hint(*guess)


def _why(text: str) -> str:
    if not text:
        return "empty"
    if "*" in text:
        return "wildcards are not subscribed: name each symbol"
    if len(text) <= _MAX_LOOKED_AT:
        if kind := other_instrument(tidy(text)):
            return kind
        if guess := meant(text):
            return _hint(*guess)
        if several(text):
            return "several names in one: pass each symbol by itself"
    if len(text) > MAX_SYMBOL_LENGTH:
        return f"{len(text)} characters long; a symbol has at most {MAX_SYMBOL_LENGTH}"
    odd = next((c for c in text if not re.fullmatch(r"[A-Za-z0-9.]", c)), None)
    if odd is not None and odd != "-":
        return f"has a character that no symbol has (U+{ord(odd):04X})"
    return "dots only stand between letters or digits, and hyphens nowhere"


def _hint(odd: str, symbol: str) -> str:
    return f"{odd}; did you mean {symbol}?"
