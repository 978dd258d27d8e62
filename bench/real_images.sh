#!/usr/bin/env bash
# The runs behind docs/results.md: federations of real images and their centralised twins. One after the other:
#   OUT=runs bench/real_images.sh "federated busi-0 busi --set seed=0" "central busi-0 busi --set seed=0"
# or, on a GPU that one run does not fill, TOGETHER=1 for all at once (as many processes as arguments).
set -u
cd "$(dirname "$0")/.."
DATA=${DATA:-../shared/data} OUT=${OUT:-runs} PYTHON=${PYTHON:-.venv/bin/python} TOGETHER=${TOGETHER:-0}
WORK=${WORK:-$(mktemp -d)}

run() {  # run NAME WORDS: one simulation in $WORK/NAME; what is worth keeping goes to $OUT/NAME
  local name=$1; shift
  mkdir -p "$OUT/$name"
  $PYTHON fedurwkv.py simulate --out "$WORK/$name" --set tracking.uri=none "$@" >"$OUT/$name/log.txt" 2>&1 ||
    { echo "$name failed: fedurwkv simulate $*"; tail -n 3 "$OUT/$name/log.txt"; return 1; }
  cp "$WORK/$name"/{result.json,settings.yaml,report.html,curves.png} "$OUT/$name/"
  echo "$name: fedurwkv simulate $*"
}

federated() {  # federated NAME SCENARIO WORDS
  local name=$1 scenario=$2; shift 2
  run "$name" "scenarios/$scenario.yaml" --set "data.root=$DATA" "$@"
}

central() {  # central NAME SCENARIO WORDS: the pooled twin of the run NAME, with as many rounds and local epochs
  local name=$1 scenario=$2 waited=0; shift 2
  until [ -d "$WORK/$name/sites" ]; do  # the federated run makes them
    sleep 1
    [ $((waited += 1)) -lt 120 ] || { echo "$name-central failed: no $WORK/$name/sites"; return 1; }
  done
  $PYTHON bench/pool_sites.py "$WORK/$name/sites" "$WORK/$name-pooled"
  run "$name-central" "scenarios/$scenario.yaml" "$@" --set "data.root=$WORK/$name-pooled" \
    --set data.partition=auto --set data.datasets=auto --set data.split=safe
}

for words in "$@"; do
  if [ "$TOGETHER" = 1 ]; then eval "$words" & else eval "$words"; fi
done
wait
