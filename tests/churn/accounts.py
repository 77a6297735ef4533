"""What became of each entry, from what was sent and what the workers wrote down. It knows nothing of groups.

Decides what counts as handled, told, handled twice, and handled twice without need. Must never ask Redis.
"""

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

LAG_S: Final = 3.0
"""What was acknowledged so shortly before a group was unmade may come again: it is written down now and then."""
IN_HAND_S: Final = 1.0
"""A worker that had claimed an entry when another acknowledged it late looks again only after half of this."""


class Blow(msgspec.Struct, frozen=True):
    """A moment at which what Redis knows of a group was unmade: of one symbol, or with None of all.

    With `is_rewind` everything may come again: somebody has set the group back to its beginning, or Redis has lost
    all that it knew, and the writer sends again what is young.
    """

    at: float
    symbol: str | None
    is_rewind: bool = False


class Account(msgspec.Struct):
    """The figures of one run. `needless` are entries that came again although they had been acknowledged, and no
    blow explains it; `missing` names some of those that were never handled and are in no gap."""

    entries: int = 0
    handled: int = 0
    told: int = 0
    lost: int = 0
    twice: int = 0
    twice_acknowledged: int = 0
    needless: int = 0
    gaps: dict[str, int] = {}
    missing: list[str] = []
    repeated: list[str] = []


def account(
    sent: Mapping[str, Sequence[int]], notes: Iterable[dict[str, Any]], blows: Sequence[Blow]
) -> Account:
    """The account of these entries, which are known by symbol and venue time."""
    handled: defaultdict[tuple[str, int], list[float]] = defaultdict(list)
    ids: dict[tuple[str, str], tuple[str, int]] = {}
    acked: dict[tuple[str, int], float] = {}
    gaps: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
    reasons: Counter[str] = Counter()
    for note in sorted(notes, key=lambda note: float(note["at"])):
        match note["what"]:
            case "handled":
                key = (note["symbol"], note["time"])
                handled[key].append(note["at"])
                ids[note["symbol"], note["id"]] = key
            case "told":
                gaps[note["symbol"]].append((min(note["since"], note["to"]), max(note["since"], note["to"])))
                reasons[note["why"]] += 1
            case "acked":
                for symbol, entry_id in note["ids"]:
                    if (symbol, entry_id) in ids:
                        acked.setdefault(ids[symbol, entry_id], note["at"])
    result = Account(gaps=dict(reasons))
    for symbol, times in sent.items():
        in_gaps = _covered(times, gaps[symbol])
        for number, time_ns in enumerate(times):
            result.entries += 1
            found = handled.get((symbol, time_ns), [])
            result.handled += bool(found)
            if not found and number in in_gaps:
                result.told += 1
            elif not found:
                result.lost += 1
                result.missing.append(f"{symbol} {time_ns}")
            if len(found) > 1:
                result.twice += 1
                _repeated(result, symbol, time_ns, found, acked.get((symbol, time_ns)), blows)
    result.missing = _some(result.missing)
    result.repeated = _some(result.repeated)
    return result


def _repeated(
    result: Account, symbol: str, time_ns: int, found: list[float], acked: float | None, blows: Sequence[Blow]
) -> None:
    again = [at for at in found[1:] if acked is not None and at > acked + IN_HAND_S]
    if acked is None or not again:
        return
    result.twice_acknowledged += 1
    explained = any(
        blow.symbol in {None, symbol}
        and acked - IN_HAND_S <= blow.at <= again[-1]
        and (blow.is_rewind or blow.at - acked <= LAG_S)
        for blow in blows
    )
    if not explained:
        result.needless += 1
        result.repeated.append(f"{symbol} {time_ns} acknowledged {acked:.2f}, again {again[0]:.2f}")


def _covered(times: Sequence[int], gaps: list[tuple[int, int]]) -> set[int]:
    found: set[int] = set()
    for since, to in gaps:
        found.update(range(bisect_left(times, since), bisect_left(times, to + 1)))
    return found


def _some(names: list[str]) -> list[str]:
    return names if len(names) <= 6 else [*names[:3], f"… {len(names) - 6} more …", *names[-3:]]
