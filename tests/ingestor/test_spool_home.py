"""The folder of a bus is found again, whatever its address is called today."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest
from redis import Redis

from ingestor.spool.folder import SpoolUnusable
from ingestor.spool.home import ID_FIELD, NOTE, Bus
from ingestor.spool.spool import Spool
from tests.ingestor.writer import CLAIM as SCRIPT
from tests.ingestor.writer import KEYS

CLAIM: Final = SCRIPT.decode()
HERE: Final = "127.0.0.1:6379/0"
THERE: Final = "10.0.0.2:6380/0"


def spool_at(root: Path, server: str, namespace: str = "quotes") -> Spool:
    """As the settings have it: named by the address."""
    name = f"{namespace}@{server}".replace(":", "_").replace("/", "_")
    return Spool(
        root / name,
        identity=f"{namespace}@{server}",
        max_bytes=1 << 20,
        max_age_s=3600.0,
        digest=lambda _: None,
    )


def a_life(
    root: Path, server: str, bus: str | None = None, namespace: str = "quotes", leaves: bytes | None = None
) -> tuple[str, list[bytes]]:
    """Move in, open, and close again: the id, and what was found. All of that is settled, `leaves` is not."""
    spool = spool_at(root, server, namespace)
    known = spool.move_in(Bus(namespace, server, bus))
    spool.open(1)
    found = list(spool.recovered())
    for record in spool.read(1 << 20):
        spool.settle(record.position)
    if leaves is not None:
        spool.append([(1, 1, leaves)], now_ns=1)
    spool.close()
    return known, [record.body for record in found]


@pytest.mark.fault("K52")
def test_a_failover_to_another_address_finds_what_waits(tmp_path: Path) -> None:
    """The id fails over with the data, there and back."""
    bus, _ = a_life(tmp_path, HERE, leaves=b"first")
    assert a_life(tmp_path, THERE, bus, leaves=b"second") == (bus, [b"first"])
    assert a_life(tmp_path, HERE, bus) == (bus, [b"second"])
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("server", ["localhost:6379/0", "[::1]:6379/0", HERE])
def test_an_emptied_redis_is_known_by_its_address(tmp_path: Path, server: str) -> None:
    """It gets back the id that it had, however this machine is spelt; also where it was seen last, not first."""
    bus, _ = a_life(tmp_path, THERE)
    a_life(tmp_path, HERE, bus, leaves=b"waits")
    assert a_life(tmp_path, server) == (bus, [b"waits"])


@pytest.mark.fault("K52")
def test_what_one_bus_left_is_not_given_to_another(tmp_path: Path) -> None:
    """Neither to another server or namespace, nor to another server at the same address, which is told why."""
    bus, _ = a_life(tmp_path, HERE, leaves=b"waits")
    assert a_life(tmp_path, THERE)[1] == []
    assert a_life(tmp_path, HERE, namespace="paper")[1] == []
    with pytest.raises(
        SpoolUnusable, match=r"quotes of another Redis.*until the spool is empty.*move the folder"
    ):
        a_life(tmp_path, HERE, "another")
    assert a_life(tmp_path, HERE, bus) == (bus, [b"waits"])
    assert a_life(tmp_path, HERE, "another") == ("another", [])


def test_deleting_the_note_gives_the_folder_to_whoever_comes(tmp_path: Path) -> None:
    """The remedy that the refusal names."""
    a_life(tmp_path, HERE, leaves=b"waits")
    (note,) = tmp_path.glob(f"*/{NOTE}")
    note.unlink()
    assert a_life(tmp_path, HERE, "another") == ("another", [b"waits"])


@pytest.mark.parametrize("bus", [None, "0123456789abcdef"])
def test_the_folder_of_an_earlier_release_is_taken_over(tmp_path: Path, bus: str | None) -> None:
    """It has no note; its segments go on by the name that they have, at other addresses too."""
    old = spool_at(tmp_path, HERE)
    old.open(1)
    old.append([(1, 1, b"waits")], now_ns=1)
    old.close()
    known, found = a_life(tmp_path, HERE, bus, leaves=b"more")
    assert found == [b"waits"]
    assert a_life(tmp_path, THERE, known) == (known, [b"more"])


@pytest.mark.parametrize(
    "text", [b"", b"{", b"[]", b'{"bus": 1}', b"\xff\x00", b"[" * 50_000], ids=lambda text: repr(text[:4])
)
def test_a_note_that_is_damaged_says_nothing(tmp_path: Path, text: bytes) -> None:
    """The folder's name has to do then, and the note is written anew."""
    bus, _ = a_life(tmp_path, HERE, leaves=b"waits")
    (note,) = tmp_path.glob(f"*/{NOTE}")
    note.write_bytes(text)
    assert a_life(tmp_path, HERE, bus, leaves=b"again") == (bus, [b"waits"])
    assert a_life(tmp_path, THERE, bus) == (bus, [b"again"])


@pytest.mark.parametrize("spoil", [lambda note: note.mkdir(), lambda note: note.symlink_to(note)])
def test_a_note_that_cannot_be_written_is_done_without(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    """The spool itself works, as before there were notes."""
    spool = spool_at(tmp_path, HERE)
    spool.folder.mkdir()
    spoil(spool.folder / NOTE)
    (spool.folder / f"{NOTE}.new").mkdir()
    a_life(tmp_path, HERE, "0123", leaves=b"waits")
    assert a_life(tmp_path, HERE, "0123") == ("0123", [b"waits"])


@pytest.mark.parametrize(("given", "kept"), [("mine", b"mine"), ("", None)])
def test_a_claim_gives_the_data_its_id_once(redis: Redis, given: str, kept: bytes | None) -> None:
    """Again when the database was emptied, and never in the place of another; without a spool, none."""
    epoch: int = 0
    for _ in range(2):
        _, epoch, _ = redis.eval(CLAIM, 1, KEYS.writer, epoch, 0, "me", "token", 0, 0, given)
        assert redis.hget(KEYS.writer, ID_FIELD) == kept
        redis.flushdb()
    redis.hset(KEYS.writer, ID_FIELD, "another")
    for asked in (0, 1):
        redis.eval(CLAIM, 1, KEYS.writer, asked, 0, "me", "token", 0, 0, given)
        assert redis.hget(KEYS.writer, ID_FIELD) == b"another"


def test_a_folder_that_is_made_anew_says_again_whose_it_is(tmp_path: Path) -> None:
    """Somebody deletes it under a daemon whose Redis has another address by then."""
    bus, _ = a_life(tmp_path, HERE)
    spool = spool_at(tmp_path, THERE)
    spool.move_in(Bus("quotes", THERE, bus))
    spool.open(1)
    shutil.rmtree(spool.folder)
    spool.append([(1, 1, b"after")], now_ns=1)
    spool.close()
    assert a_life(tmp_path, THERE, bus) == (bus, [b"after"])
