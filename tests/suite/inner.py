"""A run of pytest within a test: a folder with one module of tests, and our plugins.

Decides how it is started: without any plugin but those named, so that it takes a fraction of a second.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def inner_run(folder: Path, tests: str, *options: str) -> "subprocess.Popen[str]":
    """Start it; its tests may import what the folder's name stands for as FOLDER."""
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_inner.py").write_text(
        f"from pathlib import Path\n\nFOLDER = Path({str(folder)!r})\n{tests}"
    )
    plugins = ("tests.limits", "tests.processes", "tests.second_tries", "xdist", "pytest_rerunfailures")
    command = [sys.executable, "-m", "pytest", *(f"-p{name}" for name in plugins), "-pno:cacheprovider"]
    return subprocess.Popen(
        [*command, "-q", "-c", folder / "pytest.ini", *options, folder / "test_inner.py"],
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "PYTHONPATH": str(ROOT)},
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
