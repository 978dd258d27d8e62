#!/usr/bin/env bash
# The comparisons behind docs/results.md, of nine strategies and three baselines on real images:
#   OUT=runs bench/real_comparison.sh busi|three_domains [WORDS OF fedurwkv compare]
# A seed after the other is finished and scored; SEEDS=3 has the runs of all three side by side. After a kill the same
# words go on. LIMIT=SECONDS stops a seed, as Ctrl-C would.
set -eu
cd "$(dirname "$0")/.."
DATA=${DATA:-../shared/data} OUT=${OUT:-runs} PYTHON=${PYTHON:-.venv/bin/python}
LIMIT=${LIMIT:-infinity} SEEDS=${SEEDS:-1 2 3}

name=${1:?which: busi or three_domains}; shift
mkdir -p "$OUT"
for seeds in $SEEDS; do
  resume=(); [ ! -e "$OUT/$name/plan.json" ] || resume=(--resume)
  timeout --signal=INT "$LIMIT" "$PYTHON" fedurwkv.py compare "scenarios/$name.yaml" --out "$OUT/$name" "${resume[@]}" \
    --strategies fedavg,fedprox,fedavgm,fedadam,fedyogi,fedbn,ditto,feddg_ga,median \
    --baselines local,ensemble,central --seeds "$seeds" --for fedadam:strategy.server_lr=0.02 --for fedyogi:strategy.server_lr=0.02 \
    --set "data.root=$DATA" --set data.size=128 --set train.batch=32 --set train.lr=2e-3 --set tracking.uri=none "$@"
done
