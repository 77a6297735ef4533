"""How many symbols the vendor's plan holds, learnt from its refusals.

Decides which number a refusal proves, which it only suggests, and when it is doubted again. Must never know
sockets, Redis or the clock, nor which symbols are wanted. One symbol may be refused with the limit's own code: what
a request of several suggests is tried with the next symbol alone, and a refusal of one alone with another.
"""

from typing import Final

from ingestor.feed.events import MAX_CHANGE_SYMBOLS

RETRY_LIMIT_AFTER_S: Final = (60.0, 900.0)
"""The first look whether the limit still holds, doubling up to the last: one mistaken refusal costs a minute, and a
larger plan is noticed within a quarter of an hour."""


class Ceiling:
    """`value` is what is known of the plan's limit; None is nothing. `beyond` is a symbol that was refused alone,
    with the reason, until another one has told whether it was the symbol or the plan."""

    def __init__(self) -> None:
        self.value: int | None = None
        self.beyond: tuple[str, str] | None = None
        self._until_s = 0.0
        self._lapsed = 0
        self._is_proved = False
        self._is_doubted = False

    @property
    def retry_at_s(self) -> float | None:
        """When it is to be doubted again."""
        return self._until_s if self.value is not None else None

    def begin(self) -> None:
        """A new session: the limit is the account's and stays, a question that was open is asked anew."""
        self.beyond = None

    def forgive(self, now_s: float, waiting: int) -> None:
        """Doubt it when its time has come; forget it where nobody waits for more."""
        if self.value is not None and self._until_s <= now_s and not self._is_doubted:
            self._lapsed = min(self._lapsed + 1, 10)
            self._is_doubted = waiting > 0
            if not waiting:
                self.value = None

    def size(self, confirmed: int) -> int:
        """How many symbols the next request may have."""
        if self.beyond is not None:
            return 1
        if self.value is None:
            return MAX_CHANGE_SYMBOLS
        # It is only known from above; asking for half of the room finds it in a few steps.
        return min(MAX_CHANGE_SYMBOLS, max(1, (self.value - confirmed + 1) // 2))

    def has_a_question(self, waiting: int) -> bool:
        """Nothing is left to ask below it, and so many wait: whether one of these is to be asked for, alone."""
        if self.value is None or not waiting:
            return False
        return self.beyond is not None or self._is_doubted or not self._is_proved

    def is_stuck(self, waiting: int) -> bool:
        """Whether nobody is left whose grant would tell why one was refused alone."""
        return self.beyond is not None and (self.value is None or not waiting)

    def refuse(self, group: tuple[str, ...], confirmed: int, reason: str, now_s: float) -> None:
        """A request for these, beside so many that are confirmed, was refused with the limit's code."""
        is_confirmed = self._is_proved and self._is_doubted
        if len(group) == 1 and self.beyond is None and not is_confirmed:
            self.beyond = group[0], reason
        else:
            self.believe(confirmed + len(group) - 1, now_s, is_proved=len(group) == 1)

    def grant(self, confirmed: int) -> tuple[str, str] | None:
        """Symbols were granted, so many in all: the one that was refused alone, if there is one, is to blame for
        each request that held it."""
        culprit, self.beyond = self.beyond, None
        if culprit is not None or (self.value is not None and confirmed > self.value):
            self.value, self._is_doubted = None, False
        return culprit

    def believe(self, value: int, now_s: float, *, is_proved: bool) -> None:
        """This is the limit, until it is doubted."""
        self.beyond, self._is_doubted = None, False
        first_s, last_s = RETRY_LIMIT_AFTER_S
        self.value, self._is_proved = value, is_proved
        self._until_s = now_s + min(last_s, first_s * 2.0**self._lapsed)
