#!/bin/sh
# Makes a virtual environment with exactly the locked packages, and this checkout in it.
# Usage: scripts/setup.sh VENV   (the interpreter is $PYTHON, or the newest supported one on the PATH)
set -eu
venv=$1

usable() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }

python=
for candidate in "${PYTHON:-python3}" python3.13 python3.12 python3.11 python3.14; do
    if command -v "$candidate" >/dev/null 2>&1 && usable "$candidate"; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    echo "quotebus: Python 3.11 or newer is needed; install 3.11, 3.12 or 3.13, or name it: make setup PYTHON=/path/to/python3" >&2
    exit 1
fi

rm -f "$venv/.ready"
if ! "$python" -m venv --clear "$venv" 2>"${TMPDIR:-/tmp}/quotebus-venv.$$"; then
    # Debian keeps ensurepip in a package of its own; virtualenv or uv can do without it.
    if "$python" -m virtualenv -q "$venv" 2>/dev/null; then :
    elif command -v uv >/dev/null 2>&1 && uv venv -q --seed --python "$python" "$venv"; then :
    else
        cat "${TMPDIR:-/tmp}/quotebus-venv.$$" >&2
        echo "quotebus: $python cannot make a virtual environment; on Debian: apt install python3-venv" >&2
        rm -f "${TMPDIR:-/tmp}/quotebus-venv.$$"
        exit 1
    fi
fi
rm -f "${TMPDIR:-/tmp}/quotebus-venv.$$"

echo "quotebus: installing into $venv (a minute on the first run)" >&2
unset PYTHONPATH PYTHONHOME 2>/dev/null || true
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --require-hashes -r requirements.lock
"$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input \
    --no-deps --no-build-isolation -e .
