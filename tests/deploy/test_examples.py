"""The example files name every setting with its default, and the pages of the kit do not contradict the kit."""

import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from ingestor.settings import KNOWN_VARIABLES, Settings, load_settings
from tests.deploy.conftest import DEPLOY

ENV: Final = DEPLOY / "quotebus.env.example"
TOML: Final = DEPLOY / "quotebus.toml.example"
NOT_SETTINGS: Final = {"QUOTEBUS_CONFIG", "QUOTEBUS_REDIS_URL_FILE"}


def in_env() -> dict[str, str]:
    """The variables of the environment file, commented or not."""
    return dict(re.findall(r"^#?([A-Z][A-Z0-9_]+)=(.*)$", ENV.read_text(), re.MULTILINE))


def test_the_environment_file_names_every_setting() -> None:
    """No setting is missing, none is invented, and the rest are the credentials."""
    named = {name for name in in_env() if name.startswith("QUOTEBUS_")} - NOT_SETTINGS
    assert named == {f"QUOTEBUS_{name.upper()}" for name in Settings.model_fields}
    others = {name for name in in_env() if not name.startswith("QUOTEBUS_")}
    assert others == {f"APCA_API_{name}{end}" for name in ("KEY_ID", "SECRET_KEY") for end in ("", "_FILE")}


def test_the_environment_file_shows_the_defaults() -> None:
    """Taking the comment marks away changes nothing."""
    variables = {name: value for name, value in in_env().items() if name not in NOT_SETTINGS}
    assert load_settings(None, variables) == Settings.model_construct()


def test_the_redis_url_may_stand_in_a_file(tmp_path: Path) -> None:
    """The variable that the environment file shows is read, and goes before the TOML file."""
    secret = tmp_path / "redis_url"
    secret.write_text("redis://daemon:password@redis:6379/0\n")
    settings = load_settings(TOML, {"QUOTEBUS_REDIS_URL_FILE": str(secret)})
    assert settings.redis_url.get_secret_value() == "redis://daemon:password@redis:6379/0"
    assert "QUOTEBUS_REDIS_URL_FILE" in in_env()


def test_the_environment_file_has_no_quotes_or_trailing_comments() -> None:
    """Compose and systemd would take them as part of the value, each in its own way."""
    for name, value in in_env().items():
        assert not re.search(r"[\"'#\s]", value), name


def test_the_toml_file_names_every_setting() -> None:
    """No setting is missing, and none is invented."""
    named = re.findall(r"^#?([a-z_]+) = ", TOML.read_text(), re.MULTILINE)
    assert sorted(named) == sorted(Settings.model_fields)


def test_the_toml_file_shows_the_defaults() -> None:
    """The file as it stands is what runs without a file."""
    assert load_settings(TOML, {}) == Settings.model_construct()


def test_the_toml_file_leaves_out_only_what_has_no_value() -> None:
    """A commented line stands for None, which TOML cannot say."""
    given = tomllib.loads(TOML.read_text())
    assert {name for name in Settings.model_fields if name not in given} == {
        name for name, field in Settings.model_fields.items() if field.default is None
    }


@pytest.mark.parametrize("page", ["README.md", "RUNBOOK.md", "acl/README.md"])
def test_pages_name_what_exists(page: str) -> None:
    """Files of the kit and settings that a page mentions are there; a variable of a Service is no setting."""
    text = (DEPLOY / page).read_text().replace("QUOTEBUS_PORT=tcp://", "")
    for variable in re.findall(r"QUOTEBUS_[A-Z_]+", text):
        assert variable in KNOWN_VARIABLES, variable
    for name in re.findall(r"`(?:deploy/)?(\w[\w/.-]*\.(?:yaml|yml|acl|sh|service|example|lock))`", text):
        folder = (DEPLOY / page).parent
        assert (folder / name).exists() or (DEPLOY / name).exists(), name
