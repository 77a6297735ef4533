"""Whether the daemon at work may keep the vendor's one connection while Redis does not answer.

Decides from what Redis said last, and from the signs of life of a daemon that stands by. Must never know how either
is read, nor close anything: `now_s` and what was heard come in, a reason to be off comes out. Alone, a daemon keeps
its socket through any outage. With another in wait it must be off before that one comes: see `turn`.
"""

from typing import Final

GIVE_WAY_AFTER_S: Final = 2.0
"""The other begins 3 s after a heartbeat at the earliest, and a closing handshake may take 1 s."""
HELD_FOR_S: Final = 1.0
"""Where batches or probes are answered, a takeover is known within this time, whatever becomes of heartbeats."""
GONE_AFTER_S: Final = 3.0
"""One that stands by shows itself four times a second; what is not heard for so long is not there."""


class Tenure:
    """Told what is heard, it says whether to keep off the vendor, and why."""

    def __init__(self) -> None:
        self._beat_s = 0.0
        self._other: str | None = None
        self._other_sign: str | None = None
        self._other_heard_s: float | None = None
        self._off_since_s: float | None = None
        self._reason = ""

    def beaten(self, sent_s: float, other: str | None, sign: str | None) -> None:
        """A heartbeat that was sent then is known to stand on Redis, and so are the name and the latest sign of
        life that another left there."""
        self._beat_s = max(self._beat_s, sent_s)
        self.heard(sent_s, other, sign)

    def heard(self, asked_s: float, other: str | None, sign: str | None) -> None:
        """The name and the latest sign of life that another had left on Redis by then; None for none.

        The first sign counts as much as each one after it, since a start takes away whatever an earlier one left.
        After that a sign counts for being new: one that was killed leaves its last for ever.
        """
        if sign is None:
            self._other_heard_s = None
        elif sign != self._other_sign:
            self._other, self._other_heard_s = other or "another daemon", asked_s
        elif self._other_heard_s is not None and asked_s - self._other_heard_s > GONE_AFTER_S:
            self._other_heard_s = None
        self._other_sign = sign

    def off_because(self, now_s: float, held_s: float) -> str | None:
        """Why there must be no session with the vendor now, or None.

        `held_s` is when the last call was sent that Redis answered as to the one who holds the position. It alone
        ends being off: a heartbeat gets through although another may have taken over meanwhile.
        """
        if self._off_since_s is not None:
            if held_s <= self._off_since_s:
                return self._reason
            self._off_since_s = None
        silent_s = now_s - self._beat_s
        if self._other_heard_s is None or silent_s <= GIVE_WAY_AFTER_S or now_s - held_s <= HELD_FOR_S:
            return None
        self._off_since_s = now_s
        self._reason = (
            f"gave way to {self._other}, which stands by: no heartbeat written for {silent_s:.1f} s"
        )
        return self._reason
