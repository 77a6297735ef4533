"""How a worker keeps the records of its groups: what it writes down, what it undertakes to pay, and has paid.

Decides when a record is written and who pays a debt. Must never send anything.

A gap is written down before it is handed to the strategy, and struck out afterwards: a worker that is killed
between the two leaves it to others, as Redis does with entries. Nobody else would ever know of it, for Redis jumps
over what was trimmed, and forgets what it no longer holds.
"""

from collections.abc import Collection, Iterable, Sequence
from functools import partial
from importlib import resources
from typing import Final

from consumers.command import Command, Reply
from consumers.groups.inherit import taken
from consumers.groups.record import KEPT_S, Debt, Record, encode_record, owed_gaps, read_record
from consumers.groups.standing import Loss
from consumers.groups.track import Run, Track
from consumers.reconnect import naming
from wire import EntryId, Gap, Keyspace

SCRIPT: Final = resources.files("consumers.groups").joinpath("remember.lua").read_bytes()
REFRESH_S: Final = 86_400.0
"""A record that does not change is written all the same once in this time, or it would be forgotten."""


class Ledger:
    """The records of one worker's groups."""

    def __init__(self, keys: Keyspace, group: str, consumer: str, claim_after_s: float) -> None:
        self._keys = keys
        self._group = group
        self._consumer = consumer
        self._claim_after_s = claim_after_s

    def write(self, symbol: str, expected: bytes, record: Record) -> Command:
        """The command that writes this down, unless another record stands there by now."""
        key = self._keys.group(self._group, symbol)
        return ("EVAL", SCRIPT, 1, key, expected, encode_record(record), KEPT_S)

    def refused(self, symbol: str, error: Exception) -> Exception:
        """The error of such a command, with the key that it is about."""
        return naming(error, self._keys.group(self._group, symbol))

    def owe(self, track: Track, gaps: Collection[Gap | None]) -> None:
        """These gaps are to be told by this worker, or by another if it can not."""
        debts = owed_gaps(self._consumer, gaps)
        track.change(lambda record: record.owing(*debts), urgent=True)

    def lose(self, track: Track, loss: Loss) -> None:
        """This is to be told. Whatever XDEL took is told once, by whoever writes it down first."""
        self.owe(track, [loss.trimmed])
        if loss.upto is not None:
            debts = owed_gaps(self._consumer, [loss.deleted])
            track.change(partial(_without_deleted, debts=debts, upto=loss.upto), urgent=True)

    def told(self, track: Track, debt: Debt) -> None:
        """The strategy has this gap."""
        track.change(partial(_without, debt=debt))

    def due(self, tracks: Iterable[Track], now_s: float) -> tuple[list[tuple[Track, Record]], list[Run]]:
        """What is to be written; and what is to be handed out where that stands there already."""
        found: list[tuple[Track, Record]] = []
        runs: list[Run] = []
        for track in tracks:
            base = track.draft or track.memory
            if base is None or track.birth is not None or not (track.draft or track.edits):
                continue
            for edit in track.edits:
                base = edit(base)
            if encode_record(base) == track.raw and now_s - track.written_at < REFRESH_S:
                runs += self._written(track, base, now_s)
            else:
                found.append((track, base))
        return found, runs

    def questions(self, due: Iterable[tuple[Track, Record]]) -> list[Command]:
        """The commands that write it."""
        return [self.write(track.symbol, track.raw, record) for track, record in due]

    def digest(
        self, due: Iterable[tuple[Track, Record]], replies: Sequence[Reply], now_s: float
    ) -> list[Run]:
        """What it changes that these are written, or were not."""
        runs: list[Run] = []
        for (track, record), reply in zip(due, replies, strict=True):
            if isinstance(reply, Exception):
                raise self.refused(track.symbol, reply)
            if reply is None:
                track.raw, track.written_at = encode_record(record), now_s
                runs += self._written(track, record, now_s)
                continue
            track.raw, track.draft = bytes(reply), None
            other = read_record(track.raw)
            if other is not None and track.memory is not None and other.knows(track.memory.generation):
                track.memory = other
            elif track.urgent:
                # Whatever it is now: what is known to nobody else is written, and the next round finds the rest.
                track.memory = other or record
            track.look_at = min(track.look_at, now_s)
        return runs

    def _written(self, track: Track, record: Record, now_s: float) -> list[Run]:
        track.memory, track.draft, track.urgent = record, None, False
        track.edits.clear()
        return self._undertake(track, record, now_s)

    def _undertake(self, track: Track, record: Record, now_s: float) -> list[Run]:
        """Begin to pay what this worker has undertaken, and in time what nobody else pays."""
        runs = []
        track.mine.intersection_update(record.debts)
        if not track.mine.issuperset(track.ranges):
            track.ranges = [debt for debt in track.ranges if debt in track.mine]
            track.skipped = []
        track.others = {debt: since for debt, since in track.others.items() if debt in record.debts}
        for debt in record.debts:
            if debt in track.mine:
                continue
            if debt.by != self._consumer:
                if now_s - track.others.setdefault(debt, now_s) >= self._claim_after_s:
                    track.change(partial(taken, debt=debt, me=self._consumer))
                continue
            track.mine.add(debt)
            if debt.reason is None:
                track.ranges.append(debt)
            elif not track.dropped:
                runs.append(Run(track, debt.gap(track.symbol), [], {}, (), debt=debt))
        return runs


def _without_deleted(record: Record, debts: list[Debt], upto: EntryId) -> Record:
    known = record.deleted_to
    return record if known is not None and known >= upto else record.knowing(upto).owing(*debts)


def _without(record: Record, debt: Debt) -> Record:
    return record.without(debt)
