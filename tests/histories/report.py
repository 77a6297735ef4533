"""The table at the end of many histories.

Decides what is counted, and whether all of it is right. Must never know how the outcomes came about.
"""

from collections import Counter
from collections.abc import Sequence

from tests.histories.design import History, coverage
from tests.histories.run import Outcome


def table(designed: Sequence[History], outcomes: Sequence[Outcome]) -> str:
    """One fact in a line, and then each kind of finding with the histories that have it."""
    by_number = {history.number: history for history in designed}
    met = coverage([by_number[outcome.number] for outcome in outcomes])
    rows = {
        "histories": len(outcomes),
        "not right": sum(bool(outcome.findings) for outcome in outcomes),
        "quotes sent": sum(outcome.sent for outcome in outcomes),
        "stored": sum(outcome.stored for outcome in outcomes),
        "in markers": f"{sum(o.in_markers for o in outcomes)}  {_reasons(outcomes)}",
        "late markers": sum(outcome.late_markers for outcome in outcomes),
        "lost": sum(outcome.lost for outcome in outcomes),
        "twice": sum(outcome.twice for outcome in outcomes),
        "out of order": sum(outcome.out_of_order for outcome in outcomes),
        "unmarked connections": sum(outcome.unmarked for outcome in outcomes),
        "slowest /livez": _slowest([(o.slowest_livez_s, o.number) for o in outcomes]),
        "slowest stop": _slowest([(o.slowest_stop_s, o.number) for o in outcomes]),
        "wedges": sum(outcome.is_wedged for outcome in outcomes),
        "least pair of kinds": f"{min(met.values())} histories" if outcomes else "none",
    }
    lines = [f"  {name:22} {value}" for name, value in rows.items()]
    found = Counter(kind for outcome in outcomes for kind in {kind for kind, _ in outcome.findings})
    for kind, count in found.most_common():
        numbers = [str(o.number) for o in outcomes if any(kind == other for other, _ in o.findings)]
        lines.append(f"  {kind}: {count} ({', '.join(numbers[:12])}{', …' if len(numbers) > 12 else ''})")
    return "\n".join(lines)


def told(history: History, outcome: Outcome) -> str:
    """One history that is not right: how to repeat it, and what was found."""
    lines = [f"NOT RIGHT  make histories {history.name}"]
    lines += [f"    {kind}: {detail[:600]}" for kind, detail in outcome.findings]
    return "\n".join(lines)


def whole(history: History, outcome: Outcome) -> str:
    """All there is to know about one history, for a file."""
    parts = [str(history), *outcome.notes, told(history, outcome), str(outcome.markers), outcome.log]
    return "\n".join(parts)


def _reasons(outcomes: Sequence[Outcome]) -> str:
    reasons: Counter[str] = sum((Counter(outcome.markers) for outcome in outcomes), Counter())
    return ", ".join(f"{reason} {n}" for reason, n in reasons.most_common())


def _slowest(times: list[tuple[float, int]]) -> str:
    slowest_s, number = max(times, default=(0.0, 0))
    return f"{slowest_s:.2f} s (ONLY={number})"
