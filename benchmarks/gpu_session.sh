#!/usr/bin/env bash
# What a borrowed GPU is for, in one command of some minutes, which can be repeated: a later call goes on where the last
# one stopped. In this order, ending cleanly when the time is up:
#
#   1. the tests of the GPU path                        OUT/tests.txt
#   2. the table of steps (bench_gpu.py)                OUT/steps.md
#   3. with the time left, msg-gan-6 and samgan-8 at    OUT/RUN.json (scores), OUT/RUN.safetensors (the generator) and
#      the paper's width, always the one that has       OUT/session.txt (what was done, and when)
#      seen fewer images; RUN is ROW, or ROW-seedN
#
# No file in OUT is larger than 15 MiB: a generator of the paper's width has 90 MB, so it is in six parts, which
# `cat RUN.safetensors.* >RUN.safetensors` joins.
#
#   bash benchmarks/gpu_session.sh DATA OUT [MINUTES]
#
# DATA: a prepared set of 64 px with one channel (samgan prepare). OUT: a folder for results. MINUTES: 9 if not given.
# Nothing is downloaded. Python with torch, with what samgan depends on and, for the tests, with samgan[test] has to be
# there: to bring it is up to the caller.
#
# Variables: WORK, the folder that is kept between calls (runs/gpu-session); PYTHON, a name or an absolute path (python3);
# ROWS (msg-gan-6 samgan-8) and SEEDS (0) of each; AT_ONCE, how many runs are trained side by side (1); SETTINGS, further
# words for samgan train (--training.precision=auto), such as --classes PNEUMONIA; FEATURES (radiograph), a name or an
# absolute path, and COUNT (1000) of the scores; SLICE, seconds of a run before it is another's turn (150); SCALE (paper)
# and DEVICE (cuda), for a rehearsal without a GPU: SCALE=cpu DEVICE=cpu SETTINGS=--network.max_channels=8. Four pairs of
# small networks: SEEDS="0 1 2 3" AT_ONCE=8 SETTINGS="--network.max_channels=64 --training.precision=fp32". Our own recipe
# at 256 px: ROWS=samgan-plus SCALE=gpu SETTINGS=--training.snapshot_every_kimg=8 and a set of that size.
set -uo pipefail

minutes=${3:-9}
if [ $# -lt 2 ] || [ $# -gt 3 ] || [[ ! $minutes =~ ^[1-9][0-9]*$ ]]; then
    echo "usage: gpu_session.sh DATA OUT [MINUTES], with a whole number of minutes" >&2
    exit 2
fi
data=$(realpath -e "$1") && out=$(realpath -m "$2") || exit 2
cd "$(dirname "$0")/.." || exit 2
work=$(realpath -m "${WORK:-runs/gpu-session}") python=${PYTHON:-python3}
read -ra rows <<<"${ROWS:-msg-gan-6 samgan-8}"
read -ra seeds <<<"${SEEDS:-0}"
read -ra settings <<<"${SETTINGS:---training.precision=auto}"
device=${DEVICE:-cuda} scale=${SCALE:-paper} count=${COUNT:-1000} slice=${SLICE:-150} at_once=${AT_ONCE:-1}
features=${FEATURES:-radiograph}
test_seconds=180 table_seconds=150 score_seconds=60 start_seconds=40
export PYTHONPATH=$PWD
mkdir -p "$out" "$work" || exit 2

runs=()
for seed in "${seeds[@]}"; do
    for row in "${rows[@]}"; do
        [ "$seed" = 0 ] && runs+=("$row") || runs+=("$row-seed$seed")
    done
done

end=$((60 * minutes - 10)) # bash counts SECONDS from its start
left() { echo $((end - SECONDS)); }
say() { echo "$(date -u +%T), $(left) s left: $*" | tee -a "$out/session.txt"; }
smaller() { echo $(($1 < $2 ? $1 : $2)); }
# limited SECONDS COMMAND...: stop it after that time, gently at first; its status is then 124 or 137.
limited() { timeout --kill-after=20 "$@"; }

# once NAME SECONDS COMMAND...: write what a command prints to NAME, unless it has ended well in an earlier call, or has
# been stopped after all its time.
once() {
    local name=$1 seconds status
    seconds=$(smaller "$2" "$(left)")
    shift 2
    if [ -e "$work/$name" ]; then
        cp "$work/$name" "$out/$name"
    elif [ "$seconds" -gt "$start_seconds" ]; then
        limited "$seconds" "$@" >"$out/$name" 2>&1
        status=$?
        case $status in 124 | 137) echo "stopped after $seconds s" >>"$out/$name" ;; esac
        say "$name: status $status, $(tail -n 1 "$out/$name")"
        case $status in 0 | 124 | 137) cp "$out/$name" "$work/$name" ;; esac
    fi
}

seen() { # images that a run has seen
    local images
    images=$(grep -o '"images_seen": *[0-9]*' "$work/$1/stats.jsonl" 2>/dev/null | grep -o '[0-9]*$' | tail -n 1)
    echo "${images:-0}"
}

next() { # the runs that go on and have seen the fewest images, as many as are trained at once
    local run
    for run in "${runs[@]}"; do
        [ -e "$work/$run.finished" ] || [ -e "$work/$run.stuck" ] || echo "$(seen "$run") $run"
    done | sort -n | head -n "$at_once" | cut -d ' ' -f 2
}

train() { # train RUN SECONDS
    local run=$1 before status words=(--preset "${1%-seed*}" --scale "$scale" "${settings[@]}")
    [ "$run" = "${run%-seed*}" ] || words+=("--training.seed=${run##*-seed}")
    [ ! -e "$work/$run/config.json" ] || words=(--resume)
    before=$(seen "$run")
    limited "$2" "$python" -m samgan train "$data" --out "$work/$run" --device "$device" "${words[@]}" \
        >"$work/$run.log" 2>&1
    status=$?
    [ $status -ne 0 ] || touch "$work/$run.finished"
    say "$run: status $status, $(seen "$run") images; $(tail -n 1 "$work/$run.log" | cut -c 1-200)"
    if [ ! -e "$work/$run.finished" ] && [ "$(seen "$run")" -le "$before" ]; then
        say "$run took no step; its log is $work/$run.log"
        touch "$work/$run.stuck"
    fi
}

result() { # the scores of a run, and its generator
    local run=$1 file=$work/$1.safetensors
    rm -f "$file" "$out/$run.safetensors"*
    "$python" -m samgan export "$work/$run" "$file" >>"$work/$run.log" 2>&1 || return
    if [ "$(stat -c %s "$file")" -gt 15728640 ]; then
        split --bytes=15M --numeric-suffixes "$file" "$out/$run.safetensors."
    else
        cp "$file" "$out"
    fi
    limited "$(smaller $score_seconds "$(left)")" "$python" -m samgan evaluate "$work/$run" --data "$data" --count "$count" \
        --features "$features" --device "$device" --out "$work/$run-scores" --json >"$work/$run.json" 2>>"$work/$run.log" &&
        cp "$work/$run.json" "$out"
}

say "$("$python" -c 'import torch; print("torch", torch.__version__, torch.cuda.get_device_name() if torch.cuda.is_available() else "without a GPU")' 2>&1 | tail -n 1)"
mapfile -t tests < <(grep -l "needs an NVIDIA GPU" tests/test_*.py)
once tests.txt $test_seconds "$python" -m pytest -q -p no:cacheprovider tests/test_devices.py "${tests[@]}"
once steps.md $table_seconds "$python" benchmarks/bench_gpu.py

rm -f "$work"/*.stuck
together=4 # runs are scored at the same time
scoring=$((score_seconds * ((${#runs[@]} + together - 1) / together)))
while mapfile -t turn < <(next) && [ ${#turn[@]} -gt 0 ]; do
    seconds=$(smaller "$slice" $(($(left) - scoring - start_seconds)))
    [ "$seconds" -ge "$start_seconds" ] || break
    for run in "${turn[@]}"; do
        train "$run" "$seconds" &
    done
    wait
done

for ((first = 0; first < ${#runs[@]}; first += together)); do
    for run in "${runs[@]:first:together}"; do
        [ "$(seen "$run")" -eq 0 ] || [ "$(left)" -lt 20 ] || result "$run" &
    done
    wait
done
for run in "${runs[@]}"; do
    say "$run: $(seen "$run") images; $(find "$out" -name "$run.*" -printf '%f %s bytes, ')"
done
