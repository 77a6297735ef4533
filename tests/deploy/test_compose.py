"""The compose file, read as data: what it mounts exists, what it sets is understood, what it opens is little."""

import re
import subprocess
from pathlib import Path
from typing import Any, Final

import yaml

from ingestor.app import FAREWELL_S, SAVE_S
from ingestor.commands.run import LAST_LINES_S
from ingestor.settings import KNOWN_VARIABLES, Settings, load_settings
from tests.deploy.conftest import DEPLOY, environment, guarded_server

COMPOSE: Final[dict[str, Any]] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: Final[dict[str, Any]] = COMPOSE["services"]
DAEMON: Final[dict[str, Any]] = SERVICES["daemon"]
CREDENTIALS: Final = {"APCA_API_KEY_ID_FILE", "APCA_API_SECRET_KEY_FILE"}
MADE: Final = ("users.acl", "apca_key_id", "apca_secret_key", "quotebus.toml", "operator.url")
"""What make-secrets.sh makes for compose."""


def make_secrets(folder: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run make-secrets.sh for a Redis at an address that nobody asks."""
    return subprocess.run(
        [DEPLOY / "make-secrets.sh", "127.0.0.1:6379", folder],
        env=environment(**variables),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_variable_is_one_that_the_daemon_knows() -> None:
    """A misspelt setting would keep the daemon from starting."""
    ours = {name for name in DAEMON["environment"] if name.startswith("QUOTEBUS_")}
    assert ours <= KNOWN_VARIABLES
    assert DAEMON["environment"].keys() - ours == CREDENTIALS


def test_the_settings_load() -> None:
    """The daemon takes the values as they stand."""
    settings = load_settings(None, DAEMON["environment"])
    assert settings.http_host_port == ("0.0.0.0", 9108)


def test_secrets_are_files_and_never_values() -> None:
    """Key pair and Redis password come from mounted secrets that are declared, and that the script makes."""
    for service in SERVICES.values():
        for name in service.get("secrets", []):
            assert COMPOSE["secrets"][name]["file"] == f"./secrets/{name}"
            assert name in MADE
        for word in service.get("environment", {}).values():
            match = re.fullmatch(r"/run/secrets/(\S+)", str(word))
            assert match is None or match[1] in service["secrets"]
    for name in CREDENTIALS:
        assert DAEMON["environment"][name].startswith("/run/secrets/")
    assert "redis://" not in (DEPLOY / "compose.yaml").read_text()


def test_the_daemon_has_the_time_it_may_take() -> None:
    """Compose does not kill before the drain, the saving to disk and the farewell are over."""
    grace_s = float(DAEMON["stop_grace_period"].removesuffix("s"))
    longest_s = Settings.model_fields["drain_s"].default + SAVE_S + FAREWELL_S + LAST_LINES_S
    assert grace_s > longest_s + 5


def test_what_waits_on_disk_outlasts_the_container() -> None:
    """The spool lies on a volume of its own, in a folder that the image gives to the daemon's user."""
    folder = DAEMON["environment"]["QUOTEBUS_SPOOL_DIR"]
    (volume,) = [mount for mount in DAEMON["volumes"] if mount.endswith(f":{folder}")]
    name = volume.split(":")[0]
    users = [
        key
        for key, service in SERVICES.items()
        if any(m.startswith(name) for m in service.get("volumes", []))
    ]
    assert users == ["daemon"]
    recipe = (DEPLOY / "Dockerfile").read_text()
    (owner,) = re.findall(rf"^COPY --from=builder --chown=(\S+) \S+ {folder}$", recipe, re.MULTILINE)
    assert re.findall(r"^USER (\S+)$", recipe, re.MULTILINE) == [owner]


def test_only_loopback_reaches_in() -> None:
    """Published ports are bound to loopback, and the daemon's pages are not published at all."""
    for name, service in SERVICES.items():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), (name, port)
    assert "ports" not in DAEMON


def test_mounted_files_exist() -> None:
    """Every file that is mounted from here is here; volumes are declared."""
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (DEPLOY / source).is_file(), source
            else:
                assert source in COMPOSE["volumes"]
    build = DAEMON["build"]
    assert (DEPLOY / build["context"] / build["dockerfile"]).is_file()


def test_containers_are_locked_down() -> None:
    """No capabilities, no way to gain any, nothing to write to but volumes, and images of a version."""
    for name, service in SERVICES.items():
        assert service["read_only"] is True, name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        if service["image"] != DAEMON["image"]:
            assert re.search(r":v?\d+\.\d+", service["image"]), name


def test_redis_keeps_what_it_was_given() -> None:
    """Users come from the ACL file, every second is synced, and nothing is evicted."""
    command = SERVICES["redis"]["command"]
    options = dict(zip(command[1::2], command[2::2], strict=True))
    assert options["--aclfile"] == "/run/secrets/users.acl"
    assert (options["--appendonly"], options["--appendfsync"]) == ("yes", "everysec")
    assert options["--maxmemory-policy"] == "noeviction"


def test_made_secrets_let_the_daemon_in(tmp_path: Path) -> None:
    """The script leaves no placeholder, keeps others out, and Redis knows the passwords in the URLs it wrote."""
    folder = tmp_path / "secrets"
    made = make_secrets(folder, APCA_API_KEY_ID="id-of-nobody", APCA_API_SECRET_KEY="secret-of-nobody")
    assert made.returncode == 0, made.stderr
    assert "of-nobody" not in made.stdout + made.stderr
    assert {path.name for path in folder.iterdir()} == {*MADE, "strategy.url"}
    assert folder.stat().st_mode & 0o077 == 0
    acl = (folder / "users.acl").read_text()
    assert "CHANGE-ME" not in acl
    assert (folder / "apca_secret_key").read_text() == "secret-of-nobody\n"
    settings = load_settings(folder / "quotebus.toml", {})
    urls = [
        settings.redis_url.get_secret_value(),
        *((folder / f"{u}.url").read_text() for u in ("operator", "strategy")),
    ]
    with guarded_server(tmp_path, acl) as guarded:
        for url in urls:
            answer = _whoami(url.strip().replace(":6379/", f":{guarded.server.port}/"))
            assert answer == "PONG"


def test_secrets_are_not_made_twice(tmp_path: Path) -> None:
    """A second run would lock everybody out, so it says what to do and changes nothing."""
    variables = {"APCA_API_KEY_ID": "id-of-nobody", "APCA_API_SECRET_KEY": "secret-of-nobody"}
    make_secrets(tmp_path / "secrets", **variables)
    before = (tmp_path / "secrets/users.acl").read_text()
    again = make_secrets(tmp_path / "secrets", **variables)
    assert again.returncode == 1
    assert "remove" in again.stderr
    assert (tmp_path / "secrets/users.acl").read_text() == before


def test_secrets_want_a_key_pair(tmp_path: Path) -> None:
    """Without a terminal and without the variable, the script says which one is missing."""
    made = make_secrets(tmp_path / "secrets")
    assert made.returncode == 1
    assert "APCA_API_KEY_ID" in made.stderr


def _whoami(url: str) -> str:
    from ingestor.commands.quick_redis import QuickRedis

    with QuickRedis(url) as redis:
        answer = redis.call("PING")
    return answer.decode() if isinstance(answer, bytes) else str(answer)
