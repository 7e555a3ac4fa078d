#!/usr/bin/env bash
# Installs the foreign QUIC stack for the interop ring into the directory $1 (kept between runs).
# Needs python3 and PyPI; changes nothing outside that directory. Prints the interpreter to use.
set -euo pipefail

directory=${1:?directory}
python="$directory/bin/python"
# Two runs at once must not install into each other.
mkdir -p "$(dirname "$directory")"
exec 9>"$directory.lock"
flock 9
if ! [ -x "$python" ] || ! "$python" -c 'import aioquic, sys; sys.exit(aioquic.__version__ != "1.7.2")' 2>/dev/null; then
    rm -rf "$directory"
    if ! python3 -m venv "$directory" >&2; then
        echo "python3 has no venv module; Debian: apt-get install python3-venv" >&2
        exit 1
    fi
    "$python" -m pip install --quiet --disable-pip-version-check aioquic==1.7.2 >&2
fi
echo "$python"
