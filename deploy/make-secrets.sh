#!/bin/sh
# Makes what the daemon and Redis need to know of each other and nobody else: three Redis passwords, the ACL file with
# their hashes, and the daemon's TOML file with its Redis URL. Asks for Alpaca's key pair unless the environment has it.
#
#   deploy/make-secrets.sh [REDIS_HOST:PORT [FOLDER]]
#
# Defaults: redis:6379, which is Redis in compose.yaml, and the folder secrets beside this script. What exists is left alone.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
redis=${1:-redis:6379}
folder=${2:-$here/secrets}
mkdir -p "$folder"
# The folder keeps others out. The files themselves are readable, because compose mounts them as they are, and the
# containers' users are not yours.
chmod 700 "$folder"
umask 022

if [ -e "$folder/users.acl" ] || [ -e "$folder/quotebus.toml" ]; then
    echo "make-secrets: $folder has users already, remove users.acl and quotebus.toml to make new ones" >&2
    exit 1
fi

ask() {
    [ -s "$folder/$1" ] && return
    value=$(printenv "$2" || true)
    if [ -z "$value" ]; then
        [ -t 0 ] || { echo "make-secrets: set $2, or run this in a terminal" >&2; exit 1; }
        printf '%s: ' "$2" >&2
        [ "$3" = shown ] || stty -echo
        read -r value || true
        [ "$3" = shown ] || { stty echo; echo >&2; }
    fi
    printf '%s\n' "$value" >"$folder/$1"
}
ask apca_key_id APCA_API_KEY_ID shown
ask apca_secret_key APCA_API_SECRET_KEY hidden

cp "$here/acl/users.acl" "$folder/users.acl.new"
for user in daemon operator strategy; do
    password=$(od -An -N24 -tx1 /dev/urandom | tr -d ' \n')
    hash=$(printf %s "$password" | sha256sum | cut -d ' ' -f 1)
    sed -i "s/>CHANGE-ME-$user /#$hash /" "$folder/users.acl.new"
    if [ "$user" = daemon ]; then
        # Settings without a secret belong into the environment; this file is for the one that has a password in it.
        printf 'redis_url = "redis://daemon:%s@%s/0"\n' "$password" "$redis" >"$folder/quotebus.toml"
    else
        printf 'redis://%s:%s@%s/0\n' "$user" "$password" "$redis" >"$folder/$user.url"
    fi
done
mv "$folder/users.acl.new" "$folder/users.acl"
echo "made in $folder: users.acl, quotebus.toml, operator.url, strategy.url"
