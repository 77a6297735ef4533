"""The script that finds or fetches a program: with a package made here, and an apt-get that only copies it."""

import subprocess
from pathlib import Path

import pytest

from tests.deploy.conftest import ROOT

SCRIPT = ROOT / "scripts/debian_tool.sh"
PLAIN_TOOLS = (
    "sh cat sed tr head tail find sort grep mktemp mkdir mv rm dirname basename printenv chmod ls pwd cp env ldd "
    "dpkg-deb tar"
)


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder that stands for a machine: `bin` is its PATH, `tools` where fetched programs go."""
    (tmp_path / "bin").mkdir()
    for name in PLAIN_TOOLS.split():
        found = subprocess.run(
            ["sh", "-c", f"command -v {name}"], capture_output=True, text=True, check=False
        )
        path = found.stdout.strip()
        if path.startswith("/"):
            (tmp_path / "bin" / name).symlink_to(path)
    return tmp_path


def program(path: Path, text: str) -> Path:
    """A shell script that can be run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def find(machine: Path, *names: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Ask the script on this machine."""
    env = {"PATH": str(machine / "bin"), "QUOTEBUS_TOOLS": str(machine / "tools"), **variables}
    return subprocess.run(
        ["/bin/sh", SCRIPT, *(names or ("greeter-tools", "say-hello"))],
        env=env,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def fetched(machine: Path) -> list[str]:
    """What stands in the tools folder, hidden files too."""
    folder = machine / "tools"
    return sorted(path.name for path in folder.iterdir()) if folder.exists() else []


def package(machine: Path) -> Path:
    """A Debian package with one program in it."""
    tree = machine / "tree"
    program(tree / "usr/bin/say-hello", 'echo "hello $*"')
    (tree / "DEBIAN").mkdir(exist_ok=True)
    (tree / "DEBIAN/control").write_text(
        "Package: greeter-tools\nVersion: 1\nArchitecture: all\n"
        "Maintainer: Nobody <nobody@localhost>\nDescription: greets\n"
    )
    deb = machine / "greeter-tools_1_all.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
    return deb


def test_the_variable_goes_first(machine: Path) -> None:
    """What the user names is taken, even when the PATH has another."""
    chosen = program(machine / "mine", "true")
    program(machine / "bin/say-hello", "true")
    found = find(machine, SAY_HELLO=str(chosen))
    assert (found.returncode, found.stdout.strip()) == (0, str(chosen))


def test_the_path_goes_before_a_download(machine: Path) -> None:
    """A program on the PATH is taken, and nothing is fetched."""
    there = program(machine / "bin/say-hello", "true")
    found = find(machine)
    assert (found.returncode, found.stdout.strip()) == (0, str(there))
    assert not (machine / "tools").exists()


def test_a_package_is_unpacked_without_being_installed(machine: Path) -> None:
    """The program runs from the tools folder, and the second call finds it there."""
    deb = package(machine)
    program(machine / "bin/apt-get", f'cp "{deb}" .')
    found = find(machine)
    assert found.returncode == 0, found.stderr
    path = found.stdout.strip()
    assert path == str(machine / "tools/say-hello")
    assert subprocess.run([path, "you"], capture_output=True, text=True, check=True).stdout == "hello you\n"
    assert fetched(machine) == ["greeter-tools.d", "say-hello"]

    program(machine / "bin/apt-get", "exit 1")
    assert find(machine).stdout.strip() == path


def test_missing_package_lists_are_made_in_private(machine: Path) -> None:
    """When the machine's lists do not do, lists in a folder of our own are filled, and thrown away afterwards."""
    deb = package(machine)
    program(
        machine / "bin/apt-get",
        f"""
        echo "$@" >>"{machine}/asked"
        case "$*" in
            *State::Lists*update) exit 0 ;;
            *State::Lists*download*) cp "{deb}" . ;;
            *) echo "E: Unable to locate package" >&2; exit 100 ;;
        esac""",
    )
    found = find(machine)
    assert found.returncode == 0, found.stderr
    assert [line.split()[-1] for line in (machine / "asked").read_text().splitlines()] == [
        "greeter-tools",
        "update",
        "greeter-tools",
    ]
    assert fetched(machine) == ["greeter-tools.d", "say-hello"]


@pytest.mark.parametrize("apt", ["echo 'E: no such host' >&2; exit 100", None])
def test_failing_names_the_remedy(machine: Path, apt: str | None) -> None:
    """Without a way to fetch it, one sentence says what to install or set, and nothing is left behind."""
    if apt:
        program(machine / "bin/apt-get", apt)
    found = find(machine)
    assert (found.returncode, found.stdout) == (1, "")
    assert found.stderr.count("\n") == 1
    assert "install the package greeter-tools, or set SAY_HELLO" in found.stderr
    assert fetched(machine) == []


def test_a_program_that_does_not_start_is_not_kept(machine: Path) -> None:
    """What was fetched is tried once before anybody relies on it."""
    tree = package(machine).parent / "tree"
    program(tree / "usr/bin/say-hello", "exit 3")
    deb = machine / "broken.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-b", tree, deb], check=True, capture_output=True)
    program(machine / "bin/apt-get", f'cp "{deb}" .')
    found = find(machine)
    assert found.returncode == 1
    assert "does not start" in found.stderr
    assert not (machine / "tools/say-hello").exists()


def test_a_variable_that_names_nothing_is_told(machine: Path) -> None:
    """A wrong path is an error, not a reason to take something else."""
    found = find(machine, SAY_HELLO="/nowhere/say-hello")
    assert found.returncode == 1
    assert "SAY_HELLO=/nowhere/say-hello is not an executable file" in found.stderr


def test_wrong_usage_is_told(machine: Path) -> None:
    """Two names are needed."""
    assert find(machine, "only-one").returncode == 2
