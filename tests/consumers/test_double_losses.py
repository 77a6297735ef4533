"""Damage that hides other damage within the second before numbers are compared: the rules alone, on a model of a
stream; each was found by `make losses`."""

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from consumers.command import Command
from consumers.reading.gaps import Anchor
from consumers.reading.pursuit import ENTRIES_PER_S, LOOK_EVERY_S, Pursuit
from consumers.reading.start import Place
from wire import ZERO_ID, EntryId, Gap, Keyspace

KEY = b"quotes:stream:A"
PROMPT_S = 0.0001
NS_PER_MS = 1_000_000


@dataclass
class Stream:
    """What a server knows of one; entries are whole milliseconds."""

    ids: list[int] = field(default_factory=list)
    last: int = 0
    added: int = 0
    deleted: int = 0

    def write(self, *ids: int) -> None:
        """Entries with these ids."""
        self.ids += ids
        self.last, self.added = ids[-1], self.added + len(ids)

    def delete(self, *ids: int) -> None:
        """As XDEL does."""
        self.ids = [one for one in self.ids if one not in ids]
        self.deleted = max(self.deleted, *ids)

    def trim(self, length: int) -> None:
        """As XTRIM does."""
        self.ids = self.ids[len(self.ids) - length :]

    def answer(self, command: Command) -> Any:
        """What it says to a command of a reader."""
        match command:
            case ("XINFO", *_):
                first = self._raw(self.ids[:1])
                fields = [b"length", len(self.ids), b"last-generated-id", f"{self.last}-0".encode()]
                fields += [b"max-deleted-entry-id", f"{self.deleted}-0".encode()]
                return [*fields, b"entries-added", self.added, b"first-entry", first[0] if first else None]
            case ("XRANGE", _, at, _):
                return self._raw([one for one in self.ids if f"{one}-0" == at])
            case _:
                after, count = EntryId.parse(str(command[-1])), int(command[2])
                found = [one for one in self.ids if EntryId(one, 0) > after][:count]
                return [[KEY, self._raw(found)]] if found else None

    @staticmethod
    def _raw(ids: list[int]) -> list[Any]:
        return [[f"{one}-0".encode(), [b"q", b"[]"]] for one in ids]


class Reader:
    """Reads one stream that it has read to its end, and has just looked at."""

    def __init__(self, *ids: int, added: int = 0) -> None:
        self.stream = Stream(added=added)
        self.stream.write(*ids)
        self.got: list[int] = []
        self.gaps: list[Gap] = []
        self._now_s = 0.0
        self._pursuit = Pursuit(Keyspace())
        self._pursuit.follow("A", Place(ZERO_ID, Anchor.CHOSEN))
        self.look()

    def look(self) -> None:
        """A second later, with a look."""
        self.read(after_s=LOOK_EVERY_S + 0.1)
        self.read()

    def read(self, meanwhile: Callable[[], None] = lambda: None, *, after_s: float = PROMPT_S) -> None:
        """Ask at once, unless told otherwise; `meanwhile` happens while the server waits."""
        self._now_s += after_s
        read = self._pursuit.next_read(self._now_s)
        meanwhile()
        if read.looked:
            inner = [self.stream.answer(command) for command in read.commands[1:-1]]
            replies = [b"OK", *[b"QUEUED"] * len(inner), inner]
        else:
            replies = [self.stream.answer(command) for command in read.commands]
        proofs = [self.stream.answer(command) for command in self._pursuit.proofs(read, replies)]
        for run in self._pursuit.digest(read, replies, self._now_s, proofs):
            if run.gap is not None:
                self.gaps.append(run.gap)
                run.pass_gap()
            for entry_id, _ in run.entries:
                self.got.append(EntryId.parse(entry_id).ms)
                run.track.move_to(entry_id.decode())

    def tells(self, *ids: int) -> bool:
        """Whether each of these is in a gap."""
        return all(
            any(gap.from_ns <= one * NS_PER_MS <= gap.to_ns for gap in self.gaps) and one not in self.got
            for one in ids
        )


def test_what_was_deleted_behind_the_place_is_told_whatever_the_numbers_say() -> None:
    """Two entries of an interim stream were read and counted, and hide two that were deleted from the old one."""
    reader = Reader(1, 2, added=100)
    old, reader.stream = reader.stream, Stream()
    reader.stream.write(3, 4)
    reader.read()
    reader.stream = old
    for one in (5, 6):
        reader.read(lambda one=one: reader.stream.write(one))  # type: ignore[misc]
    assert reader.got == [1, 2, 3, 4, 5, 6]
    reader.stream.write(7, 8, 9)
    reader.stream.delete(7, 8)
    reader.look()
    assert reader.got[-1] == 9
    assert reader.tells(7, 8)


def test_a_stream_that_counts_more_than_it_can_have_been_given_is_another() -> None:
    """It is told as that, without a number, and from where the old one was last found whole."""
    reader = Reader(1, 2, added=100)
    reader.stream.write(3, 4, 5)
    reader.stream.delete(4)
    reader.read()
    reader.stream.write(6)
    reader.stream = Stream(added=10 * ENTRIES_PER_S)
    reader.stream.write(7)
    reader.look()
    assert [(gap.reason, gap.missing) for gap in reader.gaps] == [("stream_recreated", None)]
    assert reader.tells(4, 6)


def test_many_entries_that_were_trimmed_are_told_with_their_number() -> None:
    """As many as a stream can be given in the time."""
    reader = Reader(1, 2)
    reader.stream.write(*range(3, ENTRIES_PER_S // 10))
    reader.stream.trim(1)
    reader.look()
    assert [(gap.reason, gap.missing) for gap in reader.gaps] == [("trimmed", ENTRIES_PER_S // 10 - 4)]
    assert reader.gaps[0].from_ns == 2 * NS_PER_MS


def test_a_hole_before_the_place_reaches_to_the_place_when_nothing_is_left_behind_it() -> None:
    """The last entries were deleted before they were read and after: the gap holds both."""
    reader = Reader(1, 2)
    reader.stream.write(3, 4, 5)
    reader.stream.delete(4)
    reader.read()
    reader.stream.delete(5)
    reader.look()
    assert reader.got == [1, 2, 3, 5]
    assert reader.tells(4)


def test_a_hole_reaches_to_the_entry_behind_what_was_deleted() -> None:
    """A marker that somebody deletes tells of times behind its own id."""
    reader = Reader(1, 2)
    reader.stream.write(3, 4, 8)
    reader.stream.delete(4)
    reader.look()
    assert reader.tells(5, 6, 7)


def test_what_went_from_a_stream_before_a_failover_of_another_is_told() -> None:
    """The place is lost in a stream that counts far more: the hole begins where the first one was found whole."""
    reader = Reader(1, 2, added=100)
    reader.stream.write(3, 4, 5)
    reader.stream.delete(4)
    reader.read()
    reader.stream = Stream(added=10 * ENTRIES_PER_S)
    reader.read(lambda: reader.stream.write(6))
    behind = copy.deepcopy(reader.stream)
    reader.read(lambda: reader.stream.write(7))
    reader.stream = behind
    reader.stream.write(8)
    reader.look()
    assert reader.tells(4)


def test_numbers_of_another_stream_do_not_prove_that_what_was_deleted_had_been_read() -> None:
    """Another stream took the place, and lost entries; then more came than one read takes."""
    reader = Reader(1, 2, added=100_000)
    reader.stream = Stream()
    reader.stream.write(2)
    reader.read(lambda: reader.stream.write(3))
    reader.stream.write(4, 5, 6)
    reader.stream.delete(5)
    reader.read()
    assert reader.got[-1] == 6
    reader.stream.write(*range(7, 1_500))
    reader.look()
    reader.read()
    assert reader.got[-1] == 1_499
    assert reader.tells(5)


def test_a_stream_that_came_back_under_the_same_ids_is_no_hole() -> None:
    """As when what is kept is sent again: fewer were given to it, and nothing was deleted by hand."""
    reader = Reader(1, 2, added=100_000)
    reader.stream.write(3)
    reader.read()
    reader.stream = Stream()
    reader.stream.write(1, 2, 3, 4)
    reader.look()
    assert reader.got == [1, 2, 3, 4]
    assert reader.gaps == []


def test_what_was_deleted_before_a_full_answer_is_told_with_what_is_trimmed_after_it() -> None:
    """A look that did not see the end could not say that an entry was gone: the hole begins where all was right."""
    reader = Reader(1, 2, added=100)
    reader.stream.write(3, 4, 5)
    reader.stream.delete(4)
    reader.read()
    reader.stream.write(*range(6, 1_300))
    reader.read()
    reader.read()
    assert 5 < reader.got[-1] < 1_299
    reader.stream.write(*range(1_300, 1_400))
    reader.stream.trim(5)
    reader.look()
    assert reader.tells(4)


def test_what_was_deleted_before_a_stream_lost_its_end_is_told() -> None:
    """Entries of an interim stream were read last, and the place lies behind the end of the stream that is back."""
    reader = Reader(1, 2, added=100)
    reader.stream.write(3, 4, 5)
    reader.stream.delete(4)
    reader.read()
    old, reader.stream = reader.stream, Stream()
    reader.read(lambda: reader.stream.write(6, 7))
    reader.stream = old
    for _ in range(12):
        reader.read(after_s=LOOK_EVERY_S / 10)
    assert reader.got == [1, 2, 3, 5, 6, 7]
    assert reader.tells(4)
    reader.read(lambda: reader.stream.write(8))
    reader.look()
    assert reader.got[-1] == 8
    assert len(reader.gaps) == 1
