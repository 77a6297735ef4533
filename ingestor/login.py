"""Who we are at Redis, and when that may be said again after it was refused.

Decides whether an attempt is allowed now, for all connections of the daemon: a refused password is repeated
once in `REFUSED_PAUSE_S`, another one may be tried at once. Must never know where a password comes from.
"""

from typing import Final

REFUSED_PAUSE_S: Final = 5.0
"""Servers log every refusal, and some lock an account that gets many."""


class Login:
    """A user and a password, either of which may be absent, and what Redis last said to them."""

    def __init__(self, user: str | None, password: str | None) -> None:
        self._user, self._password = user, password
        self._refusal: str | None = None
        self._next_s = 0.0

    @property
    def user(self) -> str | None:
        """The user; None for the server's default one."""
        return self._user

    @property
    def password(self) -> str | None:
        """The password; None when we have none to give."""
        return self._password

    @property
    def refusal(self) -> str | None:
        """Why Redis refused us, until it lets us in or the login changes."""
        return self._refusal

    def change(self, user: str | None, password: str | None) -> None:
        """The login as it stands now; when it is another one, what was refused before counts no more."""
        if (user, password) != (self._user, self._password):
            self._user, self._password = user, password
            self._refusal = None

    def hinders(self, now_s: float) -> str | None:
        """Why there may be no attempt now; None allows one, and after a refusal only this one."""
        if self._refusal is None:
            return None
        if now_s < self._next_s:
            return self._refusal
        self._next_s = now_s + REFUSED_PAUSE_S
        return None

    def refused(self, password: str | None, refusal: str, now_s: float) -> None:
        """Redis would not have this password; nothing happens when the login has changed since."""
        if password == self._password:
            self._refusal, self._next_s = refusal, now_s + REFUSED_PAUSE_S

    def accepted(self) -> None:
        """Redis let us in."""
        self._refusal = None
