#!/usr/bin/env bash
# Pre-train on a Cloud TPU slice: create it, copy this commit, install, train, follow, delete.
set -euo pipefail

usage() {
  cat <<'END'
usage: ./launch_tpu.sh --name=NAME --zone=ZONE --type=TYPE --version=VERSION
                       --store=gs://BUCKET/STORE --workdir=gs://BUCKET/RUN
                       [--config=configs/demo.py] [--project=PROJECT] [--spot] [--keep]
                       [--restarts=N] [--dry_run] [-- --config.key=value ...]

  --name      of the queued resource and its node       (or TPU_LAUNCH_NAME)
  --zone      such as us-central1-a                     (or TPU_LAUNCH_ZONE)
  --type      accelerator type, such as v5litepod-16    (or TPU_LAUNCH_TYPE)
  --version   runtime, such as v2-alpha-tpuv5-lite      (or TPU_LAUNCH_VERSION)
  --store     a converted trajectory store; copied to every host
  --workdir   checkpoints and metrics                   (or TPU_LAUNCH_WORKDIR)
  --spot      cheaper, may be taken away
  --keep      do not delete the slice at the end
  --restarts  how often to begin again on a new slice when one is taken away (20)
  --dry_run   print every command, run none

What follows -- goes to `bridgeact pretrain`. The slice is deleted when training ends, well or
badly. Interrupting (Ctrl-C) while training leaves it running and says how to return to it.
The same command again resumes from the last checkpoint in --workdir; a slice that is taken away
is replaced, and training goes on from there by itself.

Exit status: 0 done; 143 training was told to stop and has saved its state, or slices were taken
away too often; 2 the command line is wrong; otherwise training failed, with its own status.
END
}

fail() {
  echo "error: $1" >&2
  exit 2
}

cd "$(dirname "$0")"

# ---- what runs on the hosts of the slice, in the unpacked archive
worker_install() { # STORE
  local requirements
  requirements=$(awk '/^uv==/ {on = 1} on {print} on && !/\\$/ {exit}' requirements.lock)
  python3 -m pip install --quiet --user --require-hashes -r /dev/stdin <<<"$requirements"
  python3 -m uv venv --quiet --clear --python 3.12 .venv
  python3 -m uv pip sync --quiet --require-hashes --python .venv/bin/python requirements-tpu.lock
  mkdir -p store
  gcloud storage cp --recursive "$1/*" store/
}

worker_train() { # FLAG...: in the background; it outlives the connection
  rm -f pretrain.status
  nohup bash launch_tpu.sh worker_run "$@" >pretrain.log 2>&1 </dev/null &
  echo $! >pretrain.pid
}

worker_run() { # FLAG...
  local status=0
  .venv/bin/python -m bridgeact_jax.cli pretrain --distributed "$@" || status=$?
  echo "$status" >pretrain.status
}

worker_follow() { # the log until training ends; its exit status
  tail -n +1 --pid="$(cat pretrain.pid)" -F pretrain.log
  exit "$(cat pretrain.status)"
}

case ${1:-} in
  worker_install) worker_install "$2"; exit ;;
  worker_train) worker_train "${@:2}"; exit ;;
  worker_run) worker_run "${@:2}"; exit ;;
  worker_follow) worker_follow ;;
esac

# ---- what runs here
name=${TPU_LAUNCH_NAME:-} zone=${TPU_LAUNCH_ZONE:-} type=${TPU_LAUNCH_TYPE:-}
version=${TPU_LAUNCH_VERSION:-} workdir=${TPU_LAUNCH_WORKDIR:-} store=
config=configs/demo.py spot=false keep=false dry_run=false restarts=20
poll=${TPU_LAUNCH_POLL:-30} # seconds between looks at the slice
project=()

while (($#)); do
  case $1 in
    --name=*) name=${1#*=} ;;
    --zone=*) zone=${1#*=} ;;
    --type=*) type=${1#*=} ;;
    --version=*) version=${1#*=} ;;
    --store=*) store=${1#*=} ;;
    --workdir=*) workdir=${1#*=} ;;
    --config=*) config=${1#*=} ;;
    --project=*) project=("--project=${1#*=}") ;;
    --restarts=*) restarts=${1#*=} ;;
    --spot) spot=true ;;
    --keep) keep=true ;;
    --dry_run) dry_run=true ;;
    -h | --help) usage; exit 0 ;;
    --) shift; break ;;
    *) fail "unknown argument '$1' (./launch_tpu.sh --help lists them; training's follow --)" ;;
  esac
  shift
done
for required in name zone type version store workdir; do
  [[ -n ${!required} ]] || fail "--$required is required"
done
[[ $restarts =~ ^[0-9]+$ ]] || fail "--restarts must be a number, not '$restarts'"
[[ $store == gs://* ]] || fail "--store must be a gs:// address, not '$store'"
[[ $workdir == gs://* ]] || fail "--workdir must be a gs:// address, not '$workdir'"
[[ -f ${config%%:*} ]] || fail "no config file '${config%%:*}'"

where=("--zone=$zone" "${project[@]}")

quoted() { # WORD...: one line that a shell splits into these words again
  local word line=
  for word in "$@"; do
    [[ $word =~ ^[A-Za-z0-9_./:=,+-]+$ ]] || word=${word@Q}
    line+=" $word"
  done
  echo "${line# }"
}

show() {
  echo "+ $(quoted "$@")" >&2
}

run() {
  show "$@"
  $dry_run || "$@"
}

on_workers() { # WORKER COMMAND_LINE
  run gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" "--worker=$1" "--command=$2"
}

describe=(gcloud compute tpus queued-resources describe "$name" "${where[@]}"
  "--format=value(state.state)")
create=(gcloud compute tpus queued-resources create "$name" "--node-id=$name" "${where[@]}"
  "--accelerator-type=$type" "--runtime-version=$version")
if $spot; then create+=(--spot); fi
delete=(gcloud compute tpus queued-resources delete "$name" "${where[@]}" --force --quiet)

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
run git archive --format=tar.gz "--output=$scratch/bridgeact_jax.tar.gz" HEAD

state_of_slice() {
  "${describe[@]}" 2>/dev/null || echo UNKNOWN
}

taken() { # STATE
  [[ $1 == SUSPENDING || $1 == SUSPENDED ]]
}

# ---- the slice
acquire() {
  local state
  if ! $dry_run; then state=$(state_of_slice); fi
  if ! $dry_run && taken "$state"; then run "${delete[@]}"; state=UNKNOWN; fi
  if $dry_run || [[ $state == UNKNOWN ]]; then run "${create[@]}"; fi
  if ! $keep; then trap 'rm -rf "$scratch"; run "${delete[@]}"' EXIT; fi
  show "${describe[@]}"
  until $dry_run; do
    state=$("${describe[@]}")
    echo "$(date +%H:%M:%S) $state" >&2
    case $state in
      ACTIVE) break ;;
      SUSPENDING | SUSPENDED) run "${delete[@]}"; run "${create[@]}" ;;
      FAILED | DELETING) echo "error: the slice is $state" >&2; exit 1 ;;
    esac
    sleep "$poll"
  done
}

# ---- this commit, its locked dependencies and the store; then training on every host
install() {
  run gcloud compute tpus tpu-vm scp "$scratch/bridgeact_jax.tar.gz" \
    "$name:bridgeact_jax.tar.gz" "${where[@]}" --worker=all &&
    on_workers all "mkdir -p bridgeact_jax && tar -xzf bridgeact_jax.tar.gz -C bridgeact_jax" &&
    on_workers all "bash bridgeact_jax/launch_tpu.sh worker_install $(quoted "${store%/}")"
}

training=$(quoted "--config=$config" --store=store "--workdir=$workdir" "$@")

# shellcheck disable=SC2329  # the trap calls it
interrupted() {
  trap 'rm -rf "$scratch"' EXIT
  echo "training goes on; follow it or end it with:" >&2
  show gcloud compute tpus tpu-vm ssh "$name" "${where[@]}" --worker=0 \
    "--command=bash bridgeact_jax/launch_tpu.sh worker_follow"
  show "${delete[@]}"
  exit 130
}

follow() { # its status is training's
  local status
  while :; do
    status=0
    on_workers 0 "bash bridgeact_jax/launch_tpu.sh worker_follow" || status=$?
    ((status == 255)) || return "$status" # 255: the connection broke
    if taken "$(state_of_slice)"; then return 255; fi
    sleep 10
  done
}

attempt() {
  local status=0
  install || return
  on_workers all "bash bridgeact_jax/launch_tpu.sh worker_train $training" || return
  trap interrupted INT TERM HUP
  follow || status=$?
  trap - INT TERM HUP
  return "$status"
}

preempted() { # STATUS: whether the slice is being taken away, which it says late
  local look looks=1
  if $spot || (($1 == 143)); then looks=5; fi
  for ((look = 1; ; look++)); do
    if taken "$(state_of_slice)"; then return 0; fi
    if ((look == looks)); then return 1; fi
    sleep "$poll"
  done
}

for ((restart = 0; ; restart++)); do
  acquire
  status=0
  attempt || status=$?
  if ((status == 0)) || ! preempted "$status"; then break; fi
  if ((restart == restarts)); then
    echo "the slice was taken away once more than --restarts=$restarts allows" >&2
    exit 143
  fi
  echo "the slice was taken away; training goes on from its last checkpoint on a new one" >&2
done
if ((status == 143)); then echo "training was told to stop and has saved its state" >&2; fi
exit "$status"
