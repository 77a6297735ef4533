"""Which folder a bus has its spool in, whatever its address is called today.

Decides from the id that Redis keeps beside the data, and from what the folders say of themselves. Must never open a
segment, nor ask Redis.

An address is no identity: a failover, another spelling or another port of a proxy changes it, and quotes that wait
would lie in a folder that nobody opens again. So a bus has an id, drawn once and kept in the writer's hash, where
it fails over and is restored with the data; and its folder has a note of that id, and of the address at which the
bus was last seen, by which one that was emptied is known again.
"""

import contextlib
import json
import os
import re
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ingestor.spool.folder import SpoolUnusable, sync_data, write_all

NOTE: Final = "bus.json"
ID_FIELD: Final = "bus"
"""The field of `{namespace}:writer` that holds the id."""
_MAX_NOTE_BYTES: Final = 64 << 10
_WORDS: Final = frozenset({"namespace", "bus", "server", "segments"})
_THIS_MACHINE: Final = re.compile(r"^(localhost|\[::1\]|127\.0\.0\.1)(?=:)")


@dataclass(frozen=True, slots=True)
class Bus:
    """What is asked about: a namespace on the server at this address, and its id there, or None."""

    namespace: str
    server: str
    id: str | None


@dataclass(frozen=True, slots=True)
class Home:
    """A folder, the id of its bus, and the name of that bus in its segments: by the address of the first day."""

    path: Path
    bus: str
    segments: str


def find_home(usual: Path, segments: str, bus: Bus) -> Home:
    """The folder of this bus beside `usual`, which is named by today's address, and so are its `segments`.

    Without an id the bus is new or was emptied, and the folder that last saw it at this address is its own. A
    folder without a note is new, or of a release that wrote none. Raises SpoolUnusable where the usual folder holds
    quotes of another bus.
    """
    notes = _notes(usual.parent, bus.namespace)
    here = _spelt_alike(bus.server)
    for path, note in notes.items():
        is_its_own = note["bus"] == bus.id if bus.id else _spelt_alike(note["server"]) == here
        if is_its_own:
            return Home(path, note["bus"], note["segments"])
    if usual in notes and _holds_segments(usual):
        raise SpoolUnusable(
            f"the spool cannot be opened in {usual}: it holds quotes of another Redis, last seen at "
            f"{notes[usual]['server']}; run the daemon against that one until the spool is empty, or move the "
            f"folder away. To have them stored in this one, delete {NOTE} there"
        )
    return Home(usual, bus.id or secrets.token_hex(8), segments)


def write_note(home: Home, bus: Bus) -> None:
    """Say in the folder whose it is. Where nothing can be written, the folder's name has to do."""
    note = {"namespace": bus.namespace, "bus": home.bus, "server": bus.server, "segments": home.segments}
    new = home.path / f"{NOTE}.new"
    with contextlib.suppress(OSError):
        home.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            write_all(descriptor, [json.dumps(note).encode()])
            sync_data(descriptor)
        finally:
            os.close(descriptor)
        new.replace(home.path / NOTE)


def _spelt_alike(server: str) -> str:
    return _THIS_MACHINE.sub("localhost", server)


def _notes(root: Path, namespace: str) -> dict[Path, dict[str, str]]:
    """By folder, the newest first; one that cannot be read says nothing."""
    found: list[tuple[int, Path, dict[str, str]]] = []
    with contextlib.suppress(OSError):
        for path in root.iterdir():
            with contextlib.suppress(OSError, ValueError, RecursionError):
                with (path / NOTE).open("rb") as source:
                    written_ns = os.fstat(source.fileno()).st_mtime_ns
                    note = json.loads(source.read(_MAX_NOTE_BYTES))
                if isinstance(note, dict) and note.keys() >= _WORDS and note["namespace"] == namespace:
                    found.append((written_ns, path, {word: str(note[word]) for word in _WORDS}))
    return {path: note for _, path, note in sorted(found, key=lambda one: one[0], reverse=True)}


def _holds_segments(path: Path) -> bool:
    with contextlib.suppress(OSError):
        return any(path.glob("*.segment"))
    return False
