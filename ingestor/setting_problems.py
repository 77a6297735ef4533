"""What is said of a setting that cannot be used: its name, the value, the reason, and what to write instead.

Decides the words. Must never show the value of a setting that may hold a password.
"""

import difflib
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

MAX_SHOWN: Final = 60
_SECRETS_OF_URL: Final = re.compile(r"(?s)(?<=://).*(?=@)|(?<=\?).+")
_REASONS: Final = {
    "int_parsing": "is no whole number",
    "int_type": "is no whole number",
    "int_from_float": "is no whole number",
    "int_parsing_size": "is too large",
    "bool_parsing": "is neither true nor false",
    "float_parsing": "is no number",
    "float_type": "is no number",
    "finite_number": "is no finite number",
    "byte_size": "is no number of bytes; write it as 64MiB, 1GB or 1048576",
    "byte_size_unit": "has a unit that is none; write it as 64MiB, 1GB or 1048576",
    "greater_than_equal": "is too small; the least is {ge}",
    "greater_than": "is too small; it must be more than {gt}",
    "less_than_equal": "is too large; the most is {le}",
    "string_too_long": "is too long; the most is {max_length} characters",
    "string_type": "is no text; in a TOML file, write it between quotes",
    "enum": "is not one of {expected}",
}
"""By pydantic's name for the error; where it has no remedy of its own, the default is given as an example."""


def problem_of(detail: Mapping[str, Any], value: Any, default: Any, names: Sequence[str]) -> str:
    """One line for one error of pydantic. `value` is None where it must not be shown."""
    name = ".".join(map(str, detail["loc"]))
    if detail["type"] == "extra_forbidden":
        return _unknown(name, value, names)
    label = f"{name} (QUOTEBUS_{name.upper()}): "
    if detail["type"] == "value_error":
        reason = str(detail["msg"]).removeprefix("Value error, ")
    elif detail["type"] in _REASONS:
        reason = _REASONS[detail["type"]].format_map(detail.get("ctx", {}))
        if ";" not in reason and default not in (None, ""):
            reason += f"; the default is {default}"
    else:
        reason = f"cannot be used: {detail['msg']}"
    return label + (reason if value is None else f"{shown(value)} {reason}")


def shown(value: Any) -> str:
    """A value between quotes, cut where it is long, without what may be the password or the token of a URL."""
    text = repr(_SECRETS_OF_URL.sub("…", value) if isinstance(value, str) else value)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 4]}...{text[-1]}"


def did_you_mean(name: str, names: Sequence[str]) -> str:
    """The nearest setting, in the spelling of what was written; nothing if none is near."""
    close = difflib.get_close_matches(name.removeprefix("QUOTEBUS_").lower(), names, 1)
    if not close:
        return ""
    return f"; did you mean {'QUOTEBUS_' + close[0].upper() if name.isupper() else close[0]}?"


def _unknown(name: str, value: Any, names: Sequence[str]) -> str:
    plain = name.lower().removeprefix("quotebus_")
    if plain in names:
        return f"{name}: no such setting in a file; there it is called {plain}"
    if isinstance(value, dict):
        return f"[{name}]: settings stand in no table; write them at the top of the file"
    if name.lower().startswith(("apca_", "alpaca_")):
        variable = name.upper()
        return f"{name}: keys do not stand in this file; set {variable} or {variable}_FILE in the environment"
    return f"{name}: no such setting{did_you_mean(name.lower(), names)}"
