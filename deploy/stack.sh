#!/usr/bin/env bash
# `make up down ps logs build`: any Compose verb, on the files that fit this host.
set -euo pipefail
cd "$(dirname "$0")/.."
# shellcheck source=deploy/preflight.sh
. deploy/preflight.sh

SERVICES=(gateway tts asr)
ASK='
import http.client, json
gateway = http.client.HTTPConnection("127.0.0.1", 9090, timeout=4)
gateway.request("GET", "/health")
found = json.load(gateway.getresponse())
waits = {name: engine for name, engine in found.get("engines", {}).items() if engine["state"] != "ready"}
why = lambda engine: engine.get("reason") or engine.get("progress", {}).get("phase")
print("; ".join(" ".join(filter(None, (name, "is", engine["state"] + ",", why(engine)))).rstrip(",") for name, engine in waits.items()) or ("" if found["ready"] else "an engine is not ready"))
raise SystemExit(not found["ready"])'

export COMPOSE_PROJECT_NAME=${COMPOSE_PROJECT_NAME:-voxgate}
compose+=(-f compose.yaml)
if [[ $device == cpu ]]; then compose+=(-f deploy/compose.cpu.yaml); fi
env_file=${ENV_FILE:-deploy/.env}
if [[ -f $env_file ]]; then compose+=(--env-file "$env_file"); else env_file=/dev/null; fi

# Fun-Audio-Chat is a profile, which brings the gateway's adapter with it; without a GPU the cascade converses.
setting() { printf %s "${!1-$(sed -n "s/^$1=//p" "$env_file" | tail -n 1)}"; }
COMPOSE_PROFILES=$(setting COMPOSE_PROFILES)
fallback=''
if [[ ,$COMPOSE_PROFILES, == *,s2s,* ]]; then
  if [[ $device == gpu ]]; then
    SERVICES+=(s2s)
    VOXGATE_CONVERSE_ENGINE=$(setting VOXGATE_CONVERSE_ENGINE)
    export VOXGATE_CONVERSE_ENGINE=${VOXGATE_CONVERSE_ENGINE:-fun_audio_chat}
  else
    fallback="no GPU for Fun-Audio-Chat (s2s in COMPOSE_PROFILES), which is not started"
    COMPOSE_PROFILES=$(tr , '\n' <<<"$COMPOSE_PROFILES" | grep -vx s2s | paste -sd ,) || true
    if [[ -z $(setting VOXGATE_CONVERSE_URLS) ]]; then
      fallback+="; the cascade converses"
      export VOXGATE_CONVERSE_ENGINE=cascade
    fi
  fi
fi
# The digital human is another; without a GPU the embedded one.
if [[ ,$COMPOSE_PROFILES, == *,avatar,* ]]; then
  SERVICES+=(avatar)
  VOXGATE_ANIMATE_URLS=$(setting VOXGATE_ANIMATE_URLS)
  export VOXGATE_ANIMATE_URLS=${VOXGATE_ANIMATE_URLS:-http://avatar:8383}
fi
export COMPOSE_PROFILES
# Compose 1.29 names them all the same.
if [[ ,$COMPOSE_PROFILES, != *,s2s,* ]]; then export S2S_IMAGE=''; fi
if [[ ,$COMPOSE_PROFILES, != *,avatar,* ]]; then export AVATAR_IMAGE=voxgate-avatar:cpu; fi

# The gateway is given settings and nothing else; the environment comes last, because it wins.
SETTINGS=$(mktemp)
export SETTINGS
trap 'rm -f "$SETTINGS"' EXIT
# Paths of this host mean nothing inside.
{ cat "$env_file" && env; } | grep '^VOXGATE_' | grep -Ev '^VOXGATE_(CONFIG|SCRATCH_DIR|FFMPEG)=' >"$SETTINGS" || true

up() {
  echo "voxgate: ${device^^} ($reason)"
  if [[ $fallback ]]; then echo "voxgate: $fallback"; fi
  pull_what_is_not_ours
  open_or_seal
  end_what_is_not_wanted
  "${compose[@]}" up -d --remove-orphans "$@"
  wait_until_ready
}

# Compose 1.29 would build our engine under the name of a foreign image that is not here yet.
pull_what_is_not_ours() {
  local image
  for image in $("${compose[@]}" config | awk '$1 == "image:" {print $2}'); do
    if [[ $image != voxgate-* ]] && ! docker image inspect "$image" >/dev/null 2>&1; then docker pull "$image"; fi
  done
}

# Compose leaves a service running whose profile is not named any more.
end_what_is_not_wanted() {
  local service id
  for service in s2s avatar; do
    id=$(container "$service")
    if [[ $id && ,$COMPOSE_PROFILES, != *,$service,* ]]; then
      docker stop "$id" >/dev/null
      docker rm -f "$id" >/dev/null
      echo "voxgate: $service is not wanted any more"
    fi
  done
}

# A network keeps the way out that it was made with: when SEALED has changed, it has to be made again.
open_or_seal() {
  local sealed wanted
  sealed=$(docker network inspect -f '{{.Internal}}' "${COMPOSE_PROJECT_NAME}_downloads" 2>/dev/null) || return 0
  wanted=$("${compose[@]}" config | awk '/^ ? ?[^ ]/ {here = /^  downloads:/} here && /internal: true/ {yes = 1}
    END {print yes ? "true" : "false"}')
  if [[ $sealed != "$wanted" ]]; then
    echo "voxgate: SEALED has changed, starting anew"
    "${compose[@]}" down
  fi
}

# Three times in a row: right after an engine is exchanged, the gateway still believes the old one.
wait_until_ready() {
  local answer said='' in_a_row=0 limit=${UP_TIMEOUT:-300}
  if [[ $device == gpu ]]; then limit=${UP_TIMEOUT:-3600}; fi  # the first start may download models
  limit=$((SECONDS + limit))
  while ((in_a_row < 3)); do
    if answer=$(docker exec "$(container gateway)" python -ISc "$ASK" 2>/dev/null); then
      ((in_a_row += 1))
    else
      in_a_row=0 answer=${answer:-the gateway does not answer}
      if [[ $answer != "$said" ]]; then echo "voxgate: waiting: $answer"; fi
      said=$answer
      if ((SECONDS >= limit)); then give_up "not ready in time: $answer"; fi
      if crashing; then give_up "a service keeps stopping (is its image older than the code? make build): $answer"; fi
    fi
    sleep 1
  done
  echo "voxgate: ready on $("${compose[@]}" port gateway 9090) and $("${compose[@]}" port gateway 8383)"
}

crashing() {
  local service state
  for service in "${SERVICES[@]}"; do
    state=$(look "$service" '{{.State.Status}} {{.RestartCount}}')
    if [[ $state == restarting* && ${state#* } -ge 5 ]]; then return 0; fi
  done
  return 1
}

# Those that the gateway names as not ready, or the gateway if it says nothing; and those that do not run.
give_up() {
  local service state
  echo "voxgate: $1" >&2
  for service in "${SERVICES[@]}"; do
    state=$(look "$service" '{{.State.Status}}, restarted {{.RestartCount}} times')
    if [[ $state != running* ]] || grep -qw "$service" <<<"$1"; then
      echo "voxgate: $service is not ready ($state); its last lines:" >&2
      docker logs --tail 20 "$(container "$service")" 2>&1 | sed 's/^/  /' >&2
    fi
  done
  exit 1
}

look() { docker inspect -f "$2" "$(container "$1")"; }

container() {
  docker ps -aq --latest --filter "label=com.docker.compose.project=$COMPOSE_PROJECT_NAME" \
    --filter "label=com.docker.compose.service=$1"
}

verb=${1:?"usage: $0 up|down|ps|logs|build [arguments]"}
shift
case $verb in
  up) up "$@" ;;
  down) COMPOSE_PROFILES=s2s,avatar "${compose[@]}" down --remove-orphans "$@" ;;  # whether it is still wanted or not
  *) "${compose[@]}" "$verb" "$@" ;;
esac
