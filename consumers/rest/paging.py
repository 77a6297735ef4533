"""Whether a service that answers page by page comes nearer to its end.

Decides that from what each page holds and names as its next one. Must never ask for a page. Each page is a call of
the account: a service that leads in a circle, or that brings nothing for ever, would spend all of them.
"""

from collections.abc import Sequence
from typing import Any, Final

from wire.times import parse_rfc3339

EMPTY_PAGES: Final = 20
"""So many pages in a row may bring nothing new and name a next one all the same."""


class NoProgress(ValueError):
    """The next page would bring nothing that the ones before have not; the message says how that is known."""


class Paging:
    """The pages of one question, oldest row first; memory does not grow with their number."""

    def __init__(self) -> None:
        self._marked: str | None = None
        """A token of some pages ago. After one, two, four, … pages it is another, so that any circle is found."""
        self._since = 0
        self._hold = 1
        self._last_ns: int | None = None
        self._without_news = 0
        self._repeats = 0

    def turned(self, rows: Sequence[Any], token: str | None) -> None:
        """A page with these raw rows has come, and names this one as the next. Raises `NoProgress`."""
        times = _times(rows)
        if times and self._last_ns is not None and max(times) < self._last_ns:
            raise NoProgress("a page lies before the end of the one before it")
        is_news = bool(times) and (self._last_ns is None or max(times) > self._last_ns)
        if times:
            self._last_ns = max(times)
        self._without_news = 0 if is_news else self._without_news + 1
        if token is None:
            return
        self._repeats = self._repeats + 1 if times and not is_news else 0
        if self._repeats > 1:
            # One may hold what is left of the rows of one moment.
            raise NoProgress("pages repeat what has been told")
        if self._without_news >= EMPTY_PAGES:
            raise NoProgress(
                f"{EMPTY_PAGES} pages in a row bring nothing new, and there is said to be another"
            )
        if token == self._marked:
            raise NoProgress("a page is named as the next one that has been there before")
        self._since += 1
        if self._marked is None or self._since >= self._hold:
            self._marked, self._since, self._hold = token, 0, 2 * self._hold


def _times(rows: Sequence[Any]) -> list[int]:
    """When the first and the last readable row of a page are dated."""
    found: list[int] = []
    for ordered in (rows, reversed(rows)):
        for row in ordered:
            text = row.get("t") if isinstance(row, dict) else None
            try:
                found.append(parse_rfc3339(text if isinstance(text, str) else ""))
            except ValueError:
                continue
            break
    return found
