#!/usr/bin/env bash
# What this host has: which Compose, GPU or CPU. Sourced by stack.sh; run alone, it prints what it found.
# DEVICE=gpu or DEVICE=cpu decides instead of looking.
set -euo pipefail

find_compose() {
  if docker compose version >/dev/null 2>&1; then
    compose=(docker compose)
  elif docker-compose version >/dev/null 2>&1; then
    compose=(docker-compose)
  else
    fail "neither 'docker compose' nor docker-compose is installed"
  fi
  docker version >/dev/null 2>&1 || fail "no Docker engine answers: is it running, and may this user reach it?"
}

find_device() {
  device=${DEVICE:-} reason="DEVICE says so"
  if [[ -n $device ]]; then
    [[ $device == gpu || $device == cpu ]] || fail "DEVICE is gpu or cpu, not '$device'"
  elif ! nvidia-smi -L 2>/dev/null | grep -q GPU; then
    device=cpu reason="nvidia-smi finds no GPU"
  elif ! docker info --format '{{json .Runtimes}}' | grep -q '"nvidia"'; then
    device=cpu reason="there is a GPU, but Docker has no nvidia runtime: nvidia-ctk runtime configure"
  else
    device=gpu reason="nvidia-smi finds one and Docker has the nvidia runtime"
  fi
}

fail() {
  echo "voxgate: $*" >&2
  exit 1
}

find_compose
find_device
if [[ ${BASH_SOURCE[0]} == "$0" ]]; then echo "${device^^} ($reason); ${compose[*]}"; fi
