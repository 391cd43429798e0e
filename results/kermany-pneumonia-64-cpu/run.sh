#!/usr/bin/env bash
# The commands behind the numbers of this folder.
#   XRAYS     the training part of Kermany's chest X-rays (Mendeley Data, doi 10.17632/rscbjbr9sj.2), folders NORMAL, PNEUMONIA
#   FEATURES  a TorchScript file of the Inception that README.md names, uint8 in, 2,048 features out
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
work=${1:?usage: XRAYS=... FEATURES=... run.sh WORK_FOLDER}

samgan prepare "$XRAYS" "$work/cxr64" --resolution 64

# run NAME [SETTING...]: 64 kimg, that is 4,000 steps or 21 epochs
run() {
    local name=$1 out=$work/$1
    shift
    samgan train "$work/cxr64" --classes PNEUMONIA --scale cpu --training.kimg=64 --out "$out" "$@"
    samgan sample "$out" --count 1000 --out "$out-samples" --sheets grid
    samgan evaluate "$out" --data "$work/cxr64" --count 1000 --features "$FEATURES"
    mkdir -p "$here/$name"
    cp "$out/config.json" "$out/stats.jsonl" "$out/scores.json" "$out-samples/sheets/grid.png" "$here/$name"
}

run msg-gan-6 --preset msg-gan-6
run samgan-8-unit --preset samgan-8 --network.spectral_norm_scale=unit
samgan train "$work/cxr64" --training.kimg=92.464 --out "$work/samgan-8-unit" --resume
cp "$work/samgan-8-unit/stats.jsonl" "$here/samgan-8-unit"
# Stopped half way, at 32 kimg, and not scored; the grid is that of its snapshot.
samgan train "$work/cxr64" --classes PNEUMONIA --scale cpu --training.kimg=32 --preset samgan-8 --out "$work/samgan-8"
mkdir -p "$here/samgan-8"
cp "$work/samgan-8/config.json" "$work/samgan-8/stats.jsonl" "$here/samgan-8"
cp "$work/samgan-8/grids/kimg-000032.000.png" "$here/samgan-8/grid.png"
