"""Alpaca's error codes, told apart by number, and what each asks of us.

Decides the class of a refusal, and how one is told. Must never know the state of the conversation, nor decide by
the vendor's wording: the text beside a code has changed before, the numbers have not.
Source: "Streaming Market Data", section "Errors"; 408 is gone from the current page and 411 is known from Alpaca's
own Go client.
"""

from enum import Enum
from typing import Final, NamedTuple

MAX_WORDS: Final = 100
"""Of the vendor's wording, as much is shown."""


class Remedy(Enum):
    """What the daemon does about an error that answers nothing; one that answers a request refuses just that."""

    IGNORE = "ignore"
    """Harmless."""
    DIVIDE = "divide"
    """This request was refused whole: the next ones are smaller, until the culprit stands alone."""
    LIMIT = "limit"
    """The plan's number of symbols is full: whoever comes later in the order waits."""
    RECONNECT = "reconnect"
    """The session is lost, the account is fine."""
    SLOT_TAKEN = "slot_taken"
    """Somebody holds the account's one connection, perhaps our own ghost for up to 90 s."""
    REJECTED = "rejected"
    """Trying again cannot help until a human acts; retried in minutes, credentials read anew."""


class Code(NamedTuple):
    """One row of the vendor's table, with what an operator should read instead of the vendor's wording."""

    number: int
    msg: str
    remedy: Remedy
    meaning: str


CODES: Final[dict[int, Code]] = {
    code.number: code
    for code in (
        Code(400, "invalid syntax", Remedy.DIVIDE, "malformed message or malformed symbol"),
        Code(401, "not authenticated", Remedy.RECONNECT, "subscribed before authentication"),
        Code(402, "auth failed", Remedy.REJECTED, "the API key or its secret is wrong"),
        Code(403, "already authenticated", Remedy.IGNORE, "authenticated twice"),
        Code(404, "auth timeout", Remedy.RECONNECT, "credentials did not arrive within ten seconds"),
        Code(405, "symbol limit exceeded", Remedy.LIMIT, "the plan's number of symbols is reached"),
        Code(406, "connection limit exceeded", Remedy.SLOT_TAKEN, "the account's connection is taken"),
        Code(407, "slow client", Remedy.RECONNECT, "the vendor found us too slow"),
        Code(408, "v2 not enabled", Remedy.REJECTED, "the account may not use this API version"),
        Code(409, "insufficient subscription", Remedy.REJECTED, "the plan does not include this feed"),
        Code(
            410, "invalid subscribe action for this feed", Remedy.REJECTED, "this feed has no quotes channel"
        ),
        Code(411, "insufficient scope", Remedy.REJECTED, "the token lacks the market-data scope"),
        Code(412, "only msgpack is supported", Remedy.REJECTED, "this feed speaks msgpack only"),
        Code(413, "star subscription not allowed", Remedy.DIVIDE, "the wildcard is not allowed here"),
        Code(500, "internal error", Remedy.RECONNECT, "an error at the vendor"),
    )
}


def code_of(number: int) -> Code:
    """The row of this number. An unknown number costs the connection at most."""
    return CODES.get(number) or Code(number, "unknown", Remedy.RECONNECT, f"unknown error code {number}")


def is_about_symbols(code: Code) -> bool:
    """Whether the error speaks of what was asked for, and of nothing else."""
    return code.remedy in (Remedy.DIVIDE, Remedy.LIMIT)


def shown(words: str) -> str:
    """The vendor's wording, short and on one line."""
    line = " ".join("".join(c if c.isprintable() else " " for c in words[: 4 * MAX_WORDS]).split())
    return line if len(line) <= MAX_WORDS else line[: MAX_WORDS - 1] + "…"


def why_ended(code: Code, words: str) -> str:
    """An error as the reason of an end: our meaning, and the vendor's words where they are not the usual ones."""
    return f'{code.meaning} ("{words}")' if words and words != code.msg else code.meaning


def why_refused(code: Code, words: str) -> str:
    """An error as the reason of a symbol: the code, our meaning, and the vendor's words."""
    told = f"{code.number} {code.meaning}" if code.number in CODES else code.meaning
    return f'the vendor refused it: {told} ("{words}")' if words else f"the vendor refused it: {told}"
