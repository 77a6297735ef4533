"""The smallest change that brings the vendor's set to what is wanted.

Decides by set arithmetic alone, from levels and not from events: the same arguments give the same plan, however
they came about. Must never know what was asked before, or of any clock.
"""

from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Plan:
    """What to add, what to take away, and who has no place. The order is the order in which to ask."""

    subscribe: tuple[str, ...]
    unsubscribe: tuple[str, ...]
    waiting: tuple[str, ...]


def plan(
    desired: Sequence[str], confirmed: AbstractSet[str], refused: Iterable[str], limit: int | None
) -> Plan:
    """Compare the desired symbols, in the order of their claim to a place, with the vendor's confirmed set.

    The first `limit` of them have one; `refused` symbols take none. What is confirmed but has no place is taken
    away. The order (`seniority`) puts operators' symbols first, and leased ones that were live before newcomers:
    so a place is lost to an operator, or with the limit, and never to a lease.
    """
    skip = frozenset(refused)
    accepted = [symbol for symbol in desired if symbol not in skip] if skip else list(desired)
    chosen = accepted if limit is None else accepted[:limit]
    return Plan(
        subscribe=tuple(symbol for symbol in chosen if symbol not in confirmed),
        unsubscribe=tuple(sorted(confirmed - set(chosen))),
        waiting=() if limit is None else tuple(accepted[limit:]),
    )
