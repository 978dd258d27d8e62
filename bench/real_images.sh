#!/usr/bin/env bash
# The runs behind docs/results.md: federations of real images and their centralised twins, one after the other.
#   DATA=../shared/data OUT=runs bench/real_images.sh "federated busi-0 busi --set seed=0" "central busi-0 busi --set seed=0"
set -u
cd "$(dirname "$0")/.."
DATA=${DATA:-../shared/data} OUT=${OUT:-runs} PYTHON=${PYTHON:-.venv/bin/python}
WORK=${WORK:-$(mktemp -d)}

run() {  # run NAME WORDS: one simulation in $WORK/NAME; what is worth keeping goes to $OUT/NAME
  local name=$1; shift
  echo "== $name: fedurwkv simulate $*"
  $PYTHON fedurwkv.py simulate --out "$WORK/$name" --set tracking.uri=none "$@"
  mkdir -p "$OUT/$name" && cp "$WORK/$name"/{result.json,settings.yaml,report.html} "$OUT/$name/"
}

federated() {  # federated NAME SCENARIO WORDS
  local name=$1 scenario=$2; shift 2
  run "$name" "scenarios/$scenario.yaml" --set "data.root=$DATA" "$@"
}

central() {  # central NAME SCENARIO WORDS: the pooled twin of the run NAME, with as many rounds and local epochs
  local name=$1 scenario=$2; shift 2
  $PYTHON bench/pool_sites.py "$WORK/$name/sites" "$WORK/$name-pooled"
  run "$name-central" "scenarios/$scenario.yaml" --set "data.root=$WORK/$name-pooled" \
    --set data.partition=auto --set data.datasets=auto "$@"
}

for words in "$@"; do eval "$words"; done
