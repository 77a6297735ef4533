"""The steps of deploy/README.md, carried out: with a real Redis, the real unit, and a real daemon.

Only what needs a machine of its own is stood in for: pip, and systemd, of which `Systemd` does what the steps rely
on (credentials are copied at a start, a start lasts until READY=1 or its time limit).
"""

import contextlib
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from ingestor.commands.quick_redis import QuickRedis
from simulator.redis_server import find_server, free_port
from tests.deploy.conftest import DEPLOY, ROOT, environment
from tests.deploy.test_compose import COMPOSE, make_secrets
from tests.deploy.test_service import assigned, service
from tests.scenario.streams import KEYS
from tests.soak.memory import vendor
from wire import Gap, Quote, decode_gap, decode_quote

pytestmark = pytest.mark.timeout(300)
PAGE: Final = (DEPLOY / "README.md").read_text()
KEY_PAIR: Final = {"APCA_API_KEY_ID": "id-of-nobody", "APCA_API_SECRET_KEY": "secret-of-nobody"}
PATIENCE_S: Final = 60.0


def steps(heading: str) -> list[str]:
    """The lines that a section has one type, in order, without their comments."""
    section = PAGE.split(f"\n## {heading}", 1)[1].split("\n## ", 1)[0]
    typed = [line.strip() for line in section.splitlines() if line.startswith("    ")]
    return [re.sub(r"\s+#.*", "", line) for line in typed]


class Systemd:
    """Two services: Redis, from its configuration file, and the daemon, from the unit of the kit."""

    def __init__(self, folder: Path, redis_port: int) -> None:
        self.folder = folder
        self.redis_port = redis_port
        self.status = ""
        self.is_ready = False
        self.exports: list[str] = []
        self._redis: subprocess.Popen[bytes] | None = None
        self.daemon: subprocess.Popen[bytes] | None = None
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(str(folder / "notify"))

    @property
    def journal(self) -> str:
        """All that the daemon has said."""
        return (self.folder / "journal").read_text()

    def moved(self, text: str) -> str:
        """The text with the places of the machine inside of this test's folder."""
        for place in ("/etc/", "/opt/"):
            text = re.sub(rf"(?<![\w/]){place}", f"{self.folder}{place}", text)
        return text.replace("127.0.0.1:6379", f"127.0.0.1:{self.redis_port}")

    def restart_redis(self) -> None:
        """As its unit does."""
        self.stop_redis()
        conf = self.folder / "etc/redis/redis.conf"
        self._redis = subprocess.Popen([find_server(), conf], stdout=subprocess.DEVNULL)
        deadline_s = time.monotonic() + PATIENCE_S
        while True:
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", self.redis_port), 1.0).close()
                return
            assert self._redis.poll() is None, "Redis does not take its configuration"
            assert time.monotonic() < deadline_s
            time.sleep(0.02)

    def stop_redis(self) -> None:
        """Gracefully."""
        if self._redis is not None:
            self._redis.terminate()
            self._redis.wait(PATIENCE_S)

    def start(self) -> bool:
        """As the unit in place says; whether READY=1 came within TimeoutStartSec."""
        unit = self.folder / "etc/systemd/system/quotebus.service"
        assert unit.read_text() == (DEPLOY / "quotebus.service").read_text()
        credentials = self.folder / "credentials"
        shutil.rmtree(credentials, ignore_errors=True)
        credentials.mkdir()
        for loaded in service("LoadCredential"):
            name, _, source = loaded.partition(":")
            shutil.copy(self.moved(source), credentials / name)
        variables = {name: value.replace("%d", str(credentials)) for name, value in assigned().items()}
        for line in (self.folder / "etc/quotebus/quotebus.env").read_text().splitlines():
            if line and not line.startswith("#"):
                name, _, value = line.partition("=")
                variables[name] = value
        with (self.folder / "journal").open("ab") as log:
            self.daemon = subprocess.Popen(
                shlex.split(self.moved(service("ExecStart")[0])),
                env=environment(
                    **variables,
                    NOTIFY_SOCKET=str(self.folder / "notify"),
                    STATE_DIRECTORY=str(self.folder / "state"),
                ),
                stdout=log,
                stderr=log,
            )
        self.is_ready = False
        return self.hears(lambda: self.is_ready, float(service("TimeoutStartSec")[0]))

    def hears(self, holds: Callable[[], bool], within_s: float) -> bool:
        """Listen to the daemon until it holds; False when the time is over."""
        deadline_s = time.monotonic() + within_s
        while not holds():
            left_s = deadline_s - time.monotonic()
            if left_s <= 0:
                return False
            self._socket.settimeout(left_s)
            with contextlib.suppress(TimeoutError):
                for line in self._socket.recv(65_536).decode().splitlines():
                    name, _, value = line.partition("=")
                    self.is_ready |= line == "READY=1"
                    self.status = value if name == "STATUS" else self.status
        return True

    def stop(self) -> int:
        """SIGTERM, and the exit code."""
        assert self.daemon is not None
        self.daemon.terminate()
        return self.daemon.wait(PATIENCE_S)

    def close(self) -> None:
        """End both."""
        for process in (self.daemon, self._redis):
            if process is not None and process.poll() is None:
                process.kill()
                process.wait()
        self._socket.close()


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Systemd]:
    """A machine after the first step: folders, Redis' own configuration, the program, and stand-ins for what needs
    root or the network."""
    systemd = Systemd(tmp_path, free_port())
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    programs = tmp_path / f"opt/quotebus-{version}/bin"
    for folder in (tmp_path / "etc/systemd/system", tmp_path / "etc/redis", tmp_path / "bin", programs):
        folder.mkdir(parents=True)
    (tmp_path / "etc/redis/redis.conf").write_text(
        f"bind 127.0.0.1\nport {systemd.redis_port}\ndir {tmp_path}\nsave ''\nappendonly yes\n"
    )
    program = '#!/bin/sh\nexec "{}" -c "from ingestor.entry import main; main()" "$@"\n'
    _script(programs / "quotebus", program.format(sys.executable))
    _script(programs / "pip", _PIP)
    _script(tmp_path / "bin/install", _INSTALL)
    try:
        yield systemd
    finally:
        systemd.close()


_PIP: Final = """#!/bin/sh -e
# Packages are not fetched here; the files that are named have to be there.
while [ $# -gt 0 ]; do
    case $1 in -r) shift; test -s "$1" ;; .) test -s pyproject.toml ;; esac
    shift
done
"""
_INSTALL: Final = """#!/bin/sh -e
# Nobody here may give files away.
[ "$1" = -o ] && shift 2
[ "$1" = -g ] && shift 2
exec /usr/bin/install "$@"
"""


def _script(path: Path, text: str) -> None:
    path.write_text(text)
    path.chmod(0o755)


def typed(systemd: Systemd, lines: list[str]) -> str:
    """Type these lines into one shell, which keeps its exports; all that it says, and no error."""
    done = subprocess.run(
        ["bash", "-e", "-o", "pipefail", "-c", systemd.moved("\n".join([*systemd.exports, *lines]))],
        cwd=ROOT,
        env=environment(**KEY_PAIR, PATH=f"{systemd.folder}/bin:{os.environ['PATH']}"),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    systemd.exports += [line for line in lines if line.startswith("export ")]
    return done.stdout


def stored(systemd: Systemd) -> list[Quote | Gap]:
    """What the stream of AAPL holds, as a strategy sees it."""
    url = systemd.moved((systemd.folder / "etc/quotebus/strategy.url").read_text().strip())
    with QuickRedis(url) as redis:
        entries: Any = redis.call("XRANGE", KEYS.stream("AAPL"), "-", "+")
    found: list[Quote | Gap] = []
    for entry_id, (field, value) in entries:
        decode = decode_gap if field == b"gap" else decode_quote
        found.append(decode("AAPL", entry_id.decode(), value))
    return found


def until(holds: Callable[[], bool]) -> None:
    """Wait until it holds."""
    deadline_s = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline_s
        time.sleep(0.02)


def follow(systemd: Systemd, lines: list[str], feed_url: str) -> str:
    """Do what the section says, line by line; all that the shell said."""
    shell: list[str] = []
    said = ""
    for line in lines:
        if not line.startswith("systemctl"):
            # The folder of the program is the one thing that the machine has already.
            shell += [line] if not line.startswith("python3 -m venv") else []
            continue
        if shell:
            said += typed(systemd, shell)
            shell = []
        match line.removeprefix("systemctl ").split():
            case ["daemon-reload"] | ["status", "quotebus"]:
                pass
            case ["restart" | "start", "redis-server"]:
                systemd.restart_redis()
            case ["stop", "redis-server"]:
                systemd.stop_redis()
            case ["enable", "--now", "quotebus"]:
                with (systemd.folder / "etc/quotebus/quotebus.env").open("a") as settings:
                    settings.write(f"QUOTEBUS_FEED_URL={feed_url}\nQUOTEBUS_HTTP=127.0.0.1:0\n")
                assert systemd.start(), systemd.journal
            case ["restart", "quotebus"]:
                assert systemd.stop() == 0
                assert systemd.start(), systemd.journal
            case ["stop", "quotebus"]:
                assert systemd.stop() == 0
            case ["start", "quotebus"]:
                assert systemd.start(), systemd.journal
            case _:
                raise AssertionError(f"nobody here can do: {line}")
    return said + (typed(systemd, shell) if shell else "")


@pytest.fixture(scope="module")
def feed() -> Iterator[str]:
    """Where a vendor sends quotes of every symbol."""
    with vendor(200.0, 20) as url:
        yield url


def test_the_steps_for_systemd_lead_to_a_daemon_that_stores(machine: Systemd, feed: str) -> None:
    """In the order of the page: program, secrets, Redis, daemon, symbols, the status, and a changed setting."""
    *lines, last = steps("With systemd")
    said = follow(machine, lines, feed)
    assert "added 2" in said
    assert re.search(r"^alive +yes$", said, re.MULTILINE), said
    assert machine.hears(lambda: "2 of 2 symbols live" in machine.status, PATIENCE_S), machine.status

    # A changed credential: the copy that systemd made stays as it was, until the last step.
    toml = machine.folder / "etc/quotebus/quotebus.toml"
    toml.write_text(f'{toml.read_text()}instance = "renamed"\n')
    assert service("ExecReload") == ["/bin/kill -HUP $MAINPID"]
    assert machine.daemon is not None
    machine.daemon.send_signal(signal.SIGHUP)
    until(lambda: "settings_reloaded" in machine.journal)
    assert '"needs_restart":""' in machine.journal
    assert "renamed" not in machine.journal
    assert last == "systemctl restart quotebus"
    follow(machine, [last], feed)
    until(lambda: '"instance":"renamed"' in machine.journal)
    assert machine.stop() == 0


def test_a_daemon_before_its_users_is_told_and_heals(machine: Systemd, feed: str) -> None:
    """Enabled too early, the start ends all the same, the status says WRONGPASS, and no restart is needed."""
    lines = steps("With systemd")
    aclfile = [line for line in lines if "aclfile" in line]
    (conf := machine.folder / "etc/redis/redis.conf").write_text(f"{conf.read_text()}requirepass another\n")
    before = [line for line in lines if line not in aclfile and "symbols add" not in line]
    until_enabled = before[: before.index("systemctl enable --now quotebus") + 1]
    began_s = time.monotonic()
    follow(machine, until_enabled, feed)
    assert "redis: 127.0.0.1" in machine.status
    assert "WRONGPASS" in machine.status
    assert time.monotonic() - began_s < float(service("TimeoutStartSec")[0])
    conf.write_text(conf.read_text().replace("requirepass another\n", ""))
    typed(machine, aclfile)
    machine.restart_redis()
    assert machine.hears(lambda: machine.status.startswith("live"), PATIENCE_S), machine.status
    assert machine.stop() == 0


def test_the_commands_of_compose_reach_redis_as_the_operator(machine: Systemd) -> None:
    """Each `run --rm cli` is a command line that works, with the URL out of the mounted secret."""
    lines = [line for line in steps("With compose") if "run --rm cli" in line]
    assert len(lines) == 2
    folder = machine.folder / "etc/quotebus"
    assert make_secrets(folder, **KEY_PAIR).returncode == 0
    url = (folder / "operator.url").read_text().replace(":6379/", f":{machine.redis_port}/")
    (folder / "operator.url").write_text(url)
    (machine.folder / "opt/quotebus").symlink_to(next((machine.folder / "opt").iterdir()))
    typed(machine, ["echo 'aclfile /etc/quotebus/users.acl' >>/etc/redis/redis.conf"])
    machine.restart_redis()
    entrypoint = COMPOSE["services"]["cli"]["entrypoint"]
    said = []
    for line in lines:
        words = line.split(" run --rm cli ")[1].split()
        command = [word.replace("$$", "$").replace("/run/secrets", str(folder)) for word in entrypoint]
        path = f"{machine.folder}/opt/quotebus/bin:{os.environ['PATH']}"
        done = subprocess.run(
            [*command, *words], env=environment(PATH=path), capture_output=True, text=True, check=False
        )
        said.append((done.returncode, done.stdout + done.stderr))
    assert said[0] == (0, "added 2\n")
    # Nobody has started the daemon here.
    assert said[1][0] == 1
    assert "no daemon" in said[1][1]


def test_an_upgrade_is_a_marked_hole_and_nothing_else(machine: Systemd, feed: str) -> None:
    """The steps lead from a daemon at work to the next one: what the first received is stored, then one marker."""
    follow(machine, steps("With systemd"), feed)
    # The last of these steps is a restart, whose marker is no part of what follows.
    until(lambda: any(isinstance(item, Gap) for item in stored(machine)))
    before = stored(machine)
    follow(machine, steps("Upgrading"), feed)
    until(lambda: any(isinstance(item, Gap) for item in stored(machine)[len(before) :]))
    after = stored(machine)
    assert after[: len(before)] == before
    reasons = [item.reason for item in after[len(before) :] if isinstance(item, Gap)]
    assert reasons == ["daemon_stopped"], machine.journal
    assert machine.stop() == 0


def test_an_older_backup_is_restored_with_a_marker_at_its_end(machine: Systemd, feed: str) -> None:
    """What came after the backup is gone, and the stream says so before the first new quote."""
    follow(machine, steps("With systemd"), feed)
    until(lambda: len(stored(machine)) > 20)
    data, backup = machine.folder / "appendonlydir", machine.folder / "backup"
    shutil.copytree(data, backup)
    kept = len(stored(machine))
    until(lambda: len(stored(machine)) > kept + 100)
    lines = steps("Backups")
    place = lines.index("systemctl start redis-server")
    follow(machine, lines[:place], feed)
    shutil.rmtree(data)
    shutil.copytree(backup, data)
    follow(machine, lines[place:], feed)
    until(lambda: any(isinstance(item, Gap) for item in stored(machine)))
    items = stored(machine)
    (marker,) = [n for n, item in enumerate(items) if isinstance(item, Gap)]
    gap, last, first = items[marker], items[marker - 1], items[marker + 1]
    assert isinstance(gap, Gap)
    assert isinstance(last, Quote)
    assert isinstance(first, Quote)
    assert (gap.reason, gap.from_ns, gap.to_ns) == ("daemon_stopped", last.time_ns, first.time_ns)
    assert marker < kept + 100
    assert machine.stop() == 0


def test_no_step_calls_what_the_host_does_not_have() -> None:
    """With compose everything is done by docker; no line hands a password to a command that shows it."""
    for line in steps("With compose"):
        assert line.startswith(("deploy/make-secrets.sh", "docker compose -f deploy/compose.yaml ")), line
        assert ".url" not in line
