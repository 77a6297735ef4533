"""One line of a bad-day script, taken word by word: durations, numbers, codes, and how long a rule stands.

Decides how such a word is written and what is said of one that is not. Must never know what a line means, nor where
in a script it stands.
"""

import re
from typing import Final

_DURATION: Final = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)?", re.ASCII)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, None: 1.0}


class BadWord(ValueError):
    """A word that does not belong; the message is the reason, `remedy` what to write instead."""

    def __init__(self, reason: str, remedy: str) -> None:
        super().__init__(reason)
        self.remedy = remedy


class Words:
    """The words that are left; what takes one raises `BadWord` when it is not what belongs there."""

    def __init__(self, words: list[str]) -> None:
        self._words = words

    def __bool__(self) -> bool:
        return bool(self._words)

    def next(self, wanted: str) -> str:
        """Take the next word, whatever it is."""
        if not self._words:
            raise BadWord("the line ends too early", f"here belongs {wanted}")
        return self._words.pop(0)

    def maybe(self, word: str) -> bool:
        """Take the next word if it is this one."""
        if self._words and self._words[0] == word:
            self._words.pop(0)
            return True
        return False

    def expect(self, word: str) -> None:
        """Take the next word, which must be this one."""
        found = self.next(f"{word!r}")
        if found != word:
            raise BadWord(f"{found!r} is not understood", f"here belongs {word!r}")

    def duration_s(self, wanted: str = "a duration like 500ms, 5s or 2m") -> float:
        """Take a duration, in seconds."""
        word = self.next(wanted)
        match = _DURATION.fullmatch(word)
        if match is None:
            raise BadWord(f"{word!r} is not a duration", "write one like 500ms, 5s or 2m")
        return float(match[1]) * _UNIT_S[match[2]]

    def number(self, low: int, high: int, wanted: str) -> int:
        """Take a whole number within these bounds."""
        word = self.next(wanted)
        if not (word.isascii() and word.isdigit() and len(word) < 12 and low <= int(word) <= high):
            raise BadWord(f"{word!r} is not {wanted}", f"take a whole number from {low} to {high}")
        return int(word)

    def code(self) -> int:
        """Take one of the vendor's error codes."""
        return self.number(400, 599, "an error code")

    def span(self) -> tuple[int | None, float | None]:
        """Take all that is left: how many times, and for how many seconds; None is without end."""
        times: int | None = None
        for_s: float | None = None
        while self._words:
            word = self._words.pop(0)
            if word == "for" and for_s is None:
                for_s = self.duration_s()
            elif re.fullmatch(r"x[1-9][0-9]{0,5}", word) and times is None:
                times = int(word[1:])
            else:
                raise BadWord(f"{word!r} is not understood", "end with nothing, xN or for 20s")
        return times, for_s

    def end(self) -> None:
        """Nothing may be left."""
        if self._words:
            raise BadWord(f"{' '.join(self._words)!r} is too much", "end the line before it")
