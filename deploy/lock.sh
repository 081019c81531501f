#!/usr/bin/env bash
# Pins the newest versions that fit requirements/*.in, with hashes and without addresses.
set -euo pipefail
cd "$(dirname "$0")/../requirements"
uv() { ../.venv/bin/python -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
  --no-annotate --no-header --no-emit-index-url "$@"; }
../.venv/bin/python -m pip install --quiet uv
uv --upgrade dev.in -o dev.lock
uv gateway.in -c dev.lock -o gateway.lock
uv embedded.in -c dev.lock -o embedded.lock
uv run.in -c dev.lock -o run.lock
