#!/usr/bin/env bash
# The commands behind the numbers of this folder; README.md tells where the runs kept here went another way.
#   XRAYS     the training part of Kermany's chest X-rays (Mendeley Data, doi 10.17632/rscbjbr9sj.2), folders NORMAL, PNEUMONIA
#   FEATURES  a TorchScript file of the Inception that README.md names, uint8 in, 2,048 features out
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?usage: XRAYS=... FEATURES=... run.sh WORK_FOLDER}

samgan prepare "$XRAYS" "$work/cxr64" --resolution 64

# run NAME KIMG [SETTING...]
run() {
    local name=$1 kimg=$2 out=$work/$1
    shift 2
    samgan train "$work/cxr64" --classes PNEUMONIA --scale cpu "--training.kimg=$kimg" --out "$out" "$@"
    samgan sample "$out" --count 1000 --out "$out-samples" --sheets grid
    samgan evaluate "$out" --data "$work/cxr64" --count 1000 --features "$FEATURES"
    mkdir -p "$here/$name"
    cp "$out/config.json" "$out/stats.jsonl" "$out/scores.json" "$out-samples/sheets/grid.png" "$here/$name"
}

run msg-gan-6 64 --preset msg-gan-6
run samgan-8 160 --preset samgan-8
run samgan-8-unit 64 --preset samgan-8 --network.spectral_norm_scale=unit
samgan train "$work/cxr64" --training.kimg=92.464 --out "$work/samgan-8-unit" --resume
cp "$work/samgan-8-unit/stats.jsonl" "$here/samgan-8-unit"
