"""What was probably meant by a name that is no symbol of a US stock, as Alpaca spells those.

Decides from the text alone: pairs, options, futures and indices are told as what they are, and the spellings of
other vendors (a hyphen, a slash, a cashtag, `.US`, `NASDAQ:`) are answered with Alpaca's. Must never know which
symbols exist, and never repair anything: it only finds the words. Alpaca's own spelling is a root of letters and
digits and, behind a dot, the class or kind: BRK.B, BAC.PRB, ACHR.WS, AACT.U.
"""

import re
from typing import Final

_FIAT: Final = (
    "AUD|BRL|CAD|CHF|CNH|CNY|CZK|DKK|EUR|GBP|HKD|HUF|INR|JPY|KRW|MXN|NOK|NZD|PLN|SEK|SGD|TRY|USD|ZAR"
)
_COINS: Final = (
    "AAVE|ADA|AVAX|BAT|BCH|BTC|CRV|DOGE|DOT|ETH|GRT|LINK|LTC|MKR|PEPE|SHIB|SOL|SUSHI|UNI|XRP|XTZ|YFI"
)
_QUOTED_IN: Final = "USDT|USDC|USD|BTC|ETH|EUR|GBP|DAI"

_OPTION: Final = re.compile(r"(?:O:|OPRA:|[.-])?([A-Z][A-Z0-9.]{0,6}?)\s{0,6}\d{6}[CP]\d{1,8}(?:\.\d{1,3})?")
_FUTURE: Final = re.compile(r"[A-Z0-9]{1,6}=F|/M?[A-Z]{2,3}(?:[FGHJKMNQUVXZ]\d{1,2})?|[A-Z0-9]{1,4}\d!")
_INDEX: Final = re.compile(r"\^[A-Z0-9.]{1,12}|I:[A-Z0-9]{1,12}")
_CURRENCY: Final = re.compile(rf"(?:C:)?({_FIAT})[/._-]?({_FIAT})(?:=X)?|({_FIAT})=X")
_CRYPTO: Final = re.compile(
    rf"(?:X:)?([A-Z0-9]{{2,10}})[/_-]({_QUOTED_IN}|PERP)"
    rf"|(?:X:)?({_COINS})[.]?({_QUOTED_IN})"
    # No US stock has six letters in a row.
    r"|(?:X:)?([A-Z]{3,6})(USDT|USDC|USD)"
    rf"|({_COINS})[/_-]({_FIAT})"
)
_ISIN: Final = re.compile(r"US[0-9A-Z]{9}\d")

_SUSPECT: Final = re.compile(
    rf"\d{{6}}[CP]\d|\.US$|^US[0-9A-Z]{{9}}\d$|^[A-Z]{{2,7}}\.?(?:{_FIAT}|{_QUOTED_IN})$"
)

_DASHES: Final = str.maketrans(dict.fromkeys("\u2010\u2011\u2012\u2013\u2014\u2212", "-"))
_QUOTATION: Final = "\"'`\u2018\u2019\u201c\u201d"
_AROUND: Final = _QUOTATION + ",; \t\r\n"
_VENUE: Final = re.compile(
    r"(?:NASDAQ|NYSE|NYSEARCA|NYSEAMERICAN|AMEX|ARCA|BATS|CBOE|IEX|OTC|OTCMKTS|US):(?=[A-Z])|\$(?=[A-Z])"
)
_COUNTRY: Final = re.compile(r"(?<=[A-Z])(?: US EQUITY|[.:_ -]US)$")
_PARTS: Final = re.compile(r"([A-Z][A-Z0-9]{0,9})([/_ ^.-])([A-Z]{1,4})")
_CMS: Final = re.compile(r"([A-Z]{1,5})([+=])")
_SEVERAL: Final = re.compile(r"[A-Z0-9.$-]{1,20}(?:[,;|\s]+[A-Z0-9.$-]{1,20})+[,;|\s]*")
_SYMBOL: Final = re.compile(r"[A-Z0-9]+(?:\.[A-Z0-9]+)*")

_KINDS: Final = {"UN": "U", "UT": "U", "WT": "WS", "W": "WS", "RI": "RT"}
"""How others call units, warrants and rights, and how Alpaca does."""


def tidy(text: str) -> str:
    """The text as it was probably meant to be typed: in capitals, with plain hyphens, nothing around it."""
    return text.translate(_DASHES).strip(_AROUND).upper()


def is_above_suspicion(name: str) -> bool:
    """Whether a name in the shape of a symbol needs no closer look: one quick search for a hundred thousand."""
    return _SUSPECT.search(name) is None


def other_instrument(name: str) -> str | None:
    """What this name stands for, where it cannot be a stock; None where it may. `name` is in capitals."""
    if match := _OPTION.fullmatch(name):
        return f"an option contract on {match[1]}, which this feed of US stocks does not carry"
    if match := _CURRENCY.fullmatch(name):
        return "a currency pair, which this feed of US stocks does not carry"
    if match := _CRYPTO.fullmatch(name):
        base, quote = [part for part in match.groups() if part]
        return f"a crypto pair ({base}/{quote}), which this feed of US stocks does not carry"
    if _FUTURE.fullmatch(name):
        return "a futures contract, which this feed of US stocks does not carry"
    if _INDEX.fullmatch(name):
        return "an index, which this feed of US stocks does not carry; a fund that follows it may do"
    if _ISIN.fullmatch(name):
        return "an ISIN; Alpaca wants the exchange's symbol"
    return None


def meant(text: str) -> tuple[str, str] | None:
    """What is odd about this text, and the symbol that was probably meant; None where that is not clear."""
    if not text.translate(_DASHES).strip(_AROUND).isascii():
        return None  # capitals of other scripts may look like ours, and be others
    name = tidy(text)
    plain = _COUNTRY.sub("", name)
    odd = "another vendor's suffix" if plain != name else None
    bare = _VENUE.sub("", plain, count=1) if _VENUE.match(plain) else plain
    if bare != plain:
        odd = "a $ before the symbol" if plain.startswith("$") else "an exchange before the symbol"
    respelt = _with_dot(bare)
    if respelt != bare:
        odd = f"{_MARKS[_mark(bare)]} where Alpaca writes a dot"
    symbol = respelt.strip(".-")
    if not _SYMBOL.fullmatch(symbol) or len(symbol) > 20 or other_instrument(symbol):
        return None
    if odd is None:
        odd = _around(text, symbol)
    return (odd, symbol) if odd is not None else None


def several(text: str) -> bool:
    """Whether this is a list of names in one."""
    return _SEVERAL.fullmatch(tidy(text)) is not None


def _with_dot(name: str) -> str:
    if match := _CMS.fullmatch(name):
        return f"{match[1]}.{'WS' if match[2] == '+' else 'U'}"
    match = _PARTS.fullmatch(name)
    if match is None or match[2] == ".":
        return name
    root, mark, kind = match.groups()
    if mark == "^":
        kind = f"PR{kind}"  # as the NYSE writes preferred shares
    elif mark == " " and len(kind) > 1 and not re.fullmatch(r"PR[A-Z]?|WS|UN|WT|RT", kind):
        return name  # two names rather than one with a kind
    elif re.fullmatch(r"P[A-Z]", kind):
        kind = f"PR{kind[1]}"  # as Yahoo does
    return f"{root}.{_KINDS.get(kind, kind)}"


_MARKS: Final = {
    "/": "a slash",
    "-": "a hyphen",
    "_": "an underscore",
    " ": "a blank",
    "^": "a caret",
    "+": "a plus sign",
    "=": "an equals sign",
}


def _mark(name: str) -> str:
    return next(character for character in name if character in _MARKS)


def _around(text: str, symbol: str) -> str | None:
    stripped = text.strip()
    if stripped == symbol:
        return "has spaces around it" if text != stripped else None
    if stripped.upper() == symbol:
        return "lower case"
    if stripped.strip(_QUOTATION).strip().upper() == symbol:
        return "quotation marks around it"
    if stripped.upper().strip(".-") == symbol:
        return "dots only stand between letters or digits"
    return "odd characters around it"
