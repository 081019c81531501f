#!/usr/bin/env bash
# Pins the newest versions that fit requirements/*.in, with hashes and without addresses. UPGRADE= keeps what is pinned.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv() { ../.venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header --no-emit-index-url "$@"; }
../.venv/bin/python -m pip install --quiet uv
# shellcheck disable=SC2086  # nothing at all where it is empty
uv --override gateway-without.txt ${UPGRADE---upgrade} dev.in -o dev.lock
for name in gateway embedded avatar run; do uv --override gateway-without.txt "$name.in" -c dev.lock -o "$name.lock"; done
uv --override engines-without.txt engines-dev.in -c dev.lock -o engines-dev.lock
uv --override engines-without.txt engines.in -c engines-dev.lock -o engines.lock
# Not held to dev.lock: what stock clients need is theirs to say.
# shellcheck disable=SC2086
uv --override gateway-without.txt ${UPGRADE---upgrade} clients.in -o clients.lock
