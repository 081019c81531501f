#!/usr/bin/env bash
# A Docker engine, Compose and the images' base, for a CI machine without them: Debian, as root.
# What is there already stays as it is. Exits with 1 and a reason where no engine can be had.
set -euo pipefail

BASE=${PYTHON_IMAGE:-python:3.11-slim-bookworm}
LOG=/var/log/docker_for_ci.log

main() {
  if engine_answers; then
    say "an engine answers already"
  else
    have dockerd || apt_install docker.io
    start_engine
  fi
  have_compose || apt_install docker-compose
  if docker image inspect "$BASE" >/dev/null 2>&1; then
    say "$BASE is here already"
  elif timeout 60 docker pull -q "$BASE" >/dev/null 2>&1; then
    say "pulled $BASE"
  else
    have debootstrap || apt_install debootstrap
    make_base
  fi
}

start_engine() {
  if [[ -d /run/systemd/system ]]; then
    say "starting docker.service"
    systemctl start docker
  else
    say "starting dockerd, which logs to $LOG"
    setsid dockerd </dev/null >>"$LOG" 2>&1 &
  fi
  for _ in {1..120}; do
    if engine_answers; then return; fi
    kill -0 "${!:-$$}" 2>/dev/null || break
    sleep 0.5
  done
  tail -n 5 "$LOG" >&2
  fail "the engine did not start"
}

# Debian's own Python 3.11, shaped as the official image is: a `python`, a pip that may install, the host's trusted
# certificates (a machine that cannot pull may well reach its package index through a proxy of its own).
make_base() {
  say "no registry answers: making a stand-in for $BASE out of Debian packages"
  local root certificates=/etc/ssl/certs/ca-certificates.crt
  root=$(mktemp -d)
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$root'" EXIT
  debootstrap --variant=minbase --include=ca-certificates,python3-pip,python3-venv bookworm "$root" >>"$LOG" 2>&1 ||
    { tail -n 5 "$LOG" >&2; fail "debootstrap failed"; }
  ln -s /usr/bin/python3 "$root/usr/local/bin/python"
  rm -f "$root"/usr/lib/python3.*/EXTERNALLY-MANAGED
  if [[ -f $certificates ]]; then install -m 644 "$certificates" "$root$certificates"; fi
  tar -C "$root" --exclude './var/cache/apt/*' --exclude './var/lib/apt/lists/*' --exclude './var/log/*' -c . |
    docker import -c "ENV PIP_CERT=$certificates" -c "ENV SSL_CERT_FILE=$certificates" -c 'CMD ["python"]' - "$BASE"
}

apt_install() {
  [[ -f /etc/debian_version && $EUID == 0 ]] || fail "installing $* needs Debian and root"
  say "installing $*"
  export DEBIAN_FRONTEND=noninteractive
  apt-get update -q >>"$LOG" 2>&1 || true
  apt-get install -yq "$@" >>"$LOG" 2>&1 || { tail -n 5 "$LOG" >&2; fail "cannot install $*"; }
}

have() { command -v "$1" >/dev/null; }
have_compose() { docker compose version >/dev/null 2>&1 || have docker-compose; }
engine_answers() { docker version --format '{{.Server.Version}}' >/dev/null 2>&1; }
say() { echo "docker_for_ci: $*"; }

fail() {
  say "$*" >&2
  exit 1
}

main
