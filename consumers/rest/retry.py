"""What a failed call means, and whether it is made again.

Decides from status, headers and counts. Must never sleep, call or draw a random number: the chance is an argument.
Status codes and headers: https://docs.alpaca.markets/docs/usage-limit-api-calls and RFC 9110, section 10.2.3.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from enum import Enum
from typing import Final

from consumers.arguments import check_seconds, check_waits, is_count
from consumers.rest.errors import RestError, RestLimited, RestRefused, RestUnavailable

LONGEST_PAUSE_S: Final = 120.0
"""A 429 is believed for so long at most: limits are per minute, and a wrong header must not end the day."""
SHORTEST_PAUSE_S: Final = 0.1
UNTOLD_PAUSE_S: Final = 1.0
"""How long a 429 holds that does not say."""

_UNIX_SECONDS: Final = re.compile(r"\d{9,11}(\.\d+)?", re.ASCII)
_SECONDS: Final = re.compile(r"\d{1,8}(\.\d+)?", re.ASCII)


class Kind(Enum):
    """What may be done about a failure."""

    LIMITED = "limited"
    UNAVAILABLE = "unavailable"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Failure:
    """A call that brought nothing; `text` is the reason, free of secrets. `pause_s` belongs to LIMITED."""

    kind: Kind
    text: str
    status: int = 0
    pause_s: float = 0.0

    def error(self, after: str = "") -> RestError:
        """The exception that a strategy gets for it."""
        text = f"Alpaca REST: {self.text}{after}"
        match self.kind:
            case Kind.LIMITED:
                return RestLimited(text, self.pause_s)
            case Kind.REFUSED:
                return RestRefused(text, self.status)
            case Kind.UNAVAILABLE:
                return RestUnavailable(text)


@dataclass(frozen=True, slots=True, kw_only=True)
class Retry:
    """How often and how patiently a call is made again that may succeed later.

    At most `attempts` in all, within `deadline_s` from the first, waits for the budget included. The wait
    before retry k is `first_delay_s * factor**(k-1)`, at most `max_delay_s`, less a random part of up to
    `jitter` of it; after a 429 it is the time that the service names. A call whose wait would end behind the
    deadline fails at once. Raises `ValueError` for a setting that is out of range.
    """

    attempts: int = 4
    first_delay_s: float = 0.25
    max_delay_s: float = 4.0
    factor: float = 2.0
    jitter: float = 0.5
    deadline_s: float = 15.0

    def __post_init__(self) -> None:
        if not is_count(self.attempts, 1):
            raise ValueError(f"attempts={self.attempts!r}: take 1 (no retry) or more")
        check_waits(self.first_delay_s, self.max_delay_s, self.factor, self.jitter)
        check_seconds("deadline_s", self.deadline_s)

    def delay_s(self, failure: Failure, attempt: int, elapsed_s: float, chance: float) -> float | None:
        """Seconds until the next attempt after this one (1 is the first), or None when it was the last.

        `elapsed_s` is counted from the first attempt; `chance` is a random number in [0, 1).
        """
        if failure.kind is Kind.REFUSED or attempt >= self.attempts:
            return None
        full = min(self.max_delay_s, self.first_delay_s * self.factor ** min(attempt - 1, 100))
        wait = full * (1 - self.jitter * chance)
        if failure.kind is Kind.LIMITED:
            # Behind the reset, never before it: the random part keeps a hundred strategies apart.
            wait = failure.pause_s + full * self.jitter * chance
        return wait if elapsed_s + wait < self.deadline_s else None


def judge(status: int, headers: Mapping[str, str], text: str, now_s: float) -> Failure:
    """What an HTTP status that is no success means; `now_s` is unix time, for headers that name one."""
    if status == 429:
        return Failure(Kind.LIMITED, f"the rate limit is reached ({text})", status, pause_s(headers, now_s))
    if status >= 500 or status == 408:
        return Failure(Kind.UNAVAILABLE, f"status {status} ({text})", status)
    remedy = {
        401: "; check key and secret, and that paper= is right for them",
        403: "; check key and secret, that paper= is right for them, and that your plan has the feed",
    }.get(status, "")
    return Failure(Kind.REFUSED, f"status {status} ({text}){remedy}", status)


def pause_s(headers: Mapping[str, str], now_s: float) -> float:
    """How long a 429 holds, in seconds, from Retry-After or X-RateLimit-Reset (unix time); always bounded.

    The service's own Date header stands for now where there is one, so that our clock's error does not count.
    """
    lower = {name.lower(): value.strip() for name, value in headers.items()}
    here = _date_s(lower.get("date", ""))
    now = now_s if here is None else here
    after, reset = lower.get("retry-after", ""), lower.get("x-ratelimit-reset", "")
    if _SECONDS.fullmatch(after):
        wait = float(after)
    elif (until := _date_s(after)) is not None:
        wait = until - now
    elif _UNIX_SECONDS.fullmatch(reset):
        wait = float(reset) - now
    else:
        wait = UNTOLD_PAUSE_S
    return min(max(wait, SHORTEST_PAUSE_S), LONGEST_PAUSE_S)


def _date_s(text: str) -> float | None:
    try:
        return parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None


def explain(body: str, *secrets: str) -> str:
    """One line of an error's body: Alpaca's message if it is JSON, else what it looks like; without the secrets."""
    message = re.search(r'"message"\s*:\s*"((?:[^"\\]|\\.){1,400})"', body[:4000])
    if message is not None:
        text = message[1]
    elif re.match(r"\s*(<!doctype|<html|<\?xml|<head|<body)", body[:200], re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.{1,100}?)</title>", body[:4000], re.IGNORECASE | re.DOTALL)
        text = f"an HTML page: {title[1]}" if title else "an HTML page"
    else:
        text = body[:400] or "no body"
    for secret in secrets:
        text = text.replace(secret, "***")
    return " ".join(text.split())[:200]
