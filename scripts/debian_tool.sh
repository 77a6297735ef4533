#!/bin/sh
# Prints the path of a program that the checks or benchmarks need and that no Python package carries: promtool from
# the Debian package prometheus, redis-benchmark from redis-tools, redis-server.
#
#   scripts/debian_tool.sh PACKAGE BINARY
#
# In this order: the variable named like the program ($PROMTOOL, $REDIS_BENCHMARK), one on the PATH, one fetched
# before, else the Debian package, downloaded and unpacked into .venv/tools ($QUOTEBUS_TOOLS chooses another
# folder). Nothing is installed and no root is needed; where the machine's package lists are missing or old, private
# ones are made and thrown away. Where to download from is the machine's own apt configuration.
set -eu

[ $# -eq 2 ] || { echo "usage: $0 PACKAGE BINARY" >&2; exit 2; }
package=$1
binary=$2
variable=$(printf %s "$binary" | tr 'a-z-' 'A-Z_')
tools=${QUOTEBUS_TOOLS:-$(cd "$(dirname "$0")/.." && pwd)/.venv/tools}

fail() {
    echo "$binary cannot be had: $1; install the package $package, or set $variable to the path of $binary" >&2
    exit 1
}

chosen=$(printenv "$variable" || true)
if [ -n "$chosen" ]; then
    [ -x "$chosen" ] || fail "$variable=$chosen is not an executable file"
    echo "$chosen"
    exit 0
fi
if command -v "$binary" >/dev/null; then
    command -v "$binary"
    exit 0
fi
if [ -x "$tools/$binary" ]; then
    echo "$tools/$binary"
    exit 0
fi

for needed in apt-get dpkg-deb; do
    command -v "$needed" >/dev/null || fail "it is not on the PATH, and without $needed it cannot be fetched"
done
mkdir -p "$tools" 2>/dev/null && work=$(mktemp -d "$tools/.$package.XXXXXX" 2>/dev/null) ||
    fail "the folder $tools cannot be written"
trap 'rm -rf "$work"' EXIT
# A signal must run the trap above too, and this is how a shell without "signal EXIT" does it.
trap 'exit 1' HUP INT TERM
mkdir -p "$work/debs" "$work/state/lists/partial" "$work/cache/archives/partial" "$work/root"

private=
apt() {
    # shellcheck disable=SC2086  # $private is a list of options without spaces of their own
    (cd "$work/debs" && apt-get -qq -o APT::Sandbox::User= $private "$@") >>"$work/log" 2>&1
}
download() {
    apt download "$1" && return
    # No lists, or so old that the file has gone from the archive: lists of our own, once.
    [ -z "$private" ] || return 1
    case $work in *' '*) return 1 ;; esac
    private="-o Dir::State::Lists=$work/state/lists -o Dir::Cache=$work/cache -o Debug::NoLocking=1"
    apt update && apt download "$1"
}
unpack() {
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -x "$deb" "$work/root" || fail "$(basename "$deb") cannot be unpacked"
    done
}
depends() {
    for deb in "$work"/debs/*.deb; do
        dpkg-deb -f "$deb" Depends
    done | tr ',' '\n' | sed 's/|.*//; s/(.*//; s/:any//; s/ //g' | sort -u
}
said() { tail -n 2 "$work/log" | tr '\n' ' '; }

download "$package" || fail "apt-get could not download $package ($(said))"
unpack
found=$(find "$work/root" -name "$binary" -path '*/bin/*' | head -n 1)
[ -n "$found" ] || fail "the package $package has no program of that name"
if [ ! -e "$found" ]; then
    # A link to a program that a sister package has, as redis-server is to one of redis-tools.
    for name in $(depends); do
        case $name in *"${package%%-*}"*) download "$name" || true ;; esac
    done
    unpack
    [ -e "$found" ] || fail "in $package it is a link to a program that its dependencies do not have"
fi

# Libraries that this machine lacks come from the packages that the package depends on, two levels deep.
libraries=$(find "$work/root" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
for _ in 1 2; do
    LD_LIBRARY_PATH=$libraries ldd "$found" 2>/dev/null | grep -q 'not found' || break
    for name in $(depends | grep '^lib'); do
        # The C library is the one thing that must be the machine's own.
        case $name in libc6 | libgcc-s1 | libstdc++6) continue ;; esac
        ls "$work/debs/${name}"_*.deb >/dev/null 2>&1 || download "$name" || true
    done
    unpack
    libraries=$(find "$work/root" -name '*.so*' -exec dirname {} + | sort -u | tr '\n' ':')
done

home=$tools/$package.d
relative=${found#"$work/root"}
libraries=$(printf %s "$libraries" | sed "s|$work/root|$home|g; s|:\$||")
rm -rf "$home"
mv "$work/root" "$home" 2>/dev/null || true
cat >"$work/start" <<END
#!/bin/sh
export LD_LIBRARY_PATH="$libraries"
exec "$home$relative" "\$@"
END
chmod +x "$work/start"
"$work/start" --version >>"$work/log" 2>&1 || fail "the fetched program does not start here ($(said))"
# Last, and in one step: whoever finds the program finds it whole.
mv "$work/start" "$tools/$binary"
echo "$tools/$binary"
