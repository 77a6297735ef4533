"""The systemd unit: what it names is understood by the daemon and by systemd."""

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Final

from ingestor.app import FAREWELL_S, SAVE_S
from ingestor.commands.run import LAST_LINES_S
from ingestor.settings import KNOWN_VARIABLES, Settings, spool_folder
from ingestor.supervisor import READY_WITHIN_S
from tests.deploy.conftest import DEPLOY

UNIT: Final = DEPLOY / "quotebus.service"
ANALYZE: Final = shutil.which("systemd-analyze")
FOR_A_HUMAN: Final = {2, 6}
"""Exit codes of what does not get better by itself, as the README lists them."""


def sections() -> dict[str, list[tuple[str, str]]]:
    """The unit's settings by section, repeated ones kept."""
    found: dict[str, list[tuple[str, str]]] = {}
    name = ""
    for line in UNIT.read_text().splitlines():
        if line.startswith("[") and line.endswith("]"):
            name = line[1:-1]
            found[name] = []
        elif line and not line.startswith(("#", ";")):
            key, equals, value = line.partition("=")
            assert equals, f"not a setting: {line}"
            found[name].append((key, value))
    return found


def service(key: str) -> list[str]:
    """Every value of this setting in [Service]."""
    return [value for name, value in sections()["Service"] if name == key]


def assigned() -> dict[str, str]:
    """The variables that the unit sets."""
    words = " ".join(service("Environment")).split()
    return dict(word.split("=", 1) for word in words)


def test_the_daemon_knows_its_variables() -> None:
    """A misspelt setting would keep the daemon from starting."""
    assert {name for name in assigned() if name.startswith("QUOTEBUS_")} <= KNOWN_VARIABLES


def test_secrets_come_as_credentials() -> None:
    """Each credential is a file that systemd loads, and each loaded one is used."""
    loaded = {word.split(":")[0] for word in service("LoadCredential")}
    used = {value.removeprefix("%d/") for value in assigned().values() if value.startswith("%d/")}
    assert loaded == used == {"apca_key_id", "apca_secret_key", "quotebus.toml"}
    assert {"APCA_API_KEY_ID_FILE", "APCA_API_SECRET_KEY_FILE", "QUOTEBUS_CONFIG"} <= assigned().keys()


def test_it_is_restarted_when_that_can_help() -> None:
    """Failures are tried again a bounded number of times; what a human must mend first is not."""
    assert service("Restart") == ["on-failure"]
    kept_down = {int(code) for code in service("RestartPreventExitStatus")[0].split()}
    assert kept_down == FOR_A_HUMAN
    assert float(service("RestartSec")[0]) >= 1
    limits = dict(sections()["Unit"])
    # Starts that fail at once must run into the limit, or it would never hold.
    burst, every_s = int(limits["StartLimitBurst"]), float(limits["StartLimitIntervalSec"])
    assert burst * (float(service("RestartSec")[0]) + 5) < every_s


def test_it_has_the_time_it_may_take() -> None:
    """Systemd does not kill before the drain, the saving to disk and the farewell are over."""
    longest_s = Settings.model_fields["drain_s"].default + SAVE_S + FAREWELL_S + LAST_LINES_S
    assert float(service("TimeoutStopSec")[0]) > longest_s + 5


def test_what_waits_on_disk_outlasts_a_restart() -> None:
    """The only folder it may write to is one that systemd keeps, and there the daemon looks for its spool."""
    assert service("StateDirectory") == ["quotebus"]
    assert "QUOTEBUS_SPOOL_DIR" not in assigned()
    folder = spool_folder(Settings(), {"STATE_DIRECTORY": "/var/lib/quotebus"}, "redis:6379")
    assert folder is not None
    assert folder.parent == Path("/var/lib/quotebus/spool")


def test_systemd_is_told_and_watches() -> None:
    """A start without Redis counts as done well before systemd would give up; a dead event loop is ended; a reload
    is the signal for it."""
    assert READY_WITHIN_S * 3 < float(service("TimeoutStartSec")[0]) < 120
    assert 10 <= float(service("WatchdogSec")[0]) <= 60
    assert service("ExecReload") == ["/bin/kill -HUP $MAINPID"]


def test_it_may_do_little() -> None:
    """No user, no privileges, no writing but to its own folder, no other sockets, and a bound on memory."""
    for key, value in {
        "Type": "notify",
        "NotifyAccess": "main",
        "DynamicUser": "yes",
        "StateDirectoryMode": "0700",
        "ProtectSystem": "strict",
        "NoNewPrivileges": "yes",
        "PrivateTmp": "yes",
        "RestrictAddressFamilies": "AF_INET AF_INET6 AF_UNIX",
        "CapabilityBoundingSet": "",
    }.items():
        assert service(key) == [value], key
    assert service("SystemCallFilter")[0] == "@system-service"
    assert re.fullmatch(r"\d+[MG]", service("MemoryMax")[0])


def test_systemd_understands_it(tmp_path: Path) -> None:
    """The machine's own systemd, where there is one, has no complaint and rates the exposure low."""
    if ANALYZE is None:
        return
    # The program stands elsewhere on the machine that tests.
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/quotebus/bin/quotebus", sys.executable))
    verified = subprocess.run([ANALYZE, "verify", unit], capture_output=True, text=True, check=False)
    complaints = [line for line in verified.stderr.splitlines() if "quotebus" in line]
    assert (verified.returncode, complaints) == (0, []), verified.stderr
    rated = subprocess.run(
        [ANALYZE, "security", "--offline=true", "--threshold=20", unit],
        capture_output=True,
        text=True,
        check=False,
    )
    assert rated.returncode == 0, rated.stdout[-400:] + rated.stderr
