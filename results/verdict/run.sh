#!/bin/sh
# The runs of protocol.md: run.sh DATA FEATURES.pt PART [FACES], where PART is headline, factors, rest, full or faces.
# DATA and FACES are prepared sets; FEATURES.pt is the stand-in Inception (results/stand_in.py). It can be stopped and
# started again. As many jobs at a time as there are cores, one core each. SEEDS=6 adds the seeds of the stopping rule to the
# headline. ROWS, such as ROWS="samgan-8=1 msg-gan-6=1", trains only these for now, since a machine may be there for a
# short time: both rows of a seed, so that rows and processors do not go together.
set -eu
data=$1 features=$2 part=$3 seeds=${SEEDS:-4} second="--second-features radiograph"
here=$(dirname "$0")
python "$here/verdict.py" check "$data" "$features"
[ "$seeds" -le 4 ] || python "$here/verdict.py" more
case $part in
headline) rows="samgan-8=$seeds msg-gan-6=$seeds" length="--kimg 400 --score-at 100 200" ;;
factors)
    rows="samgan-8-no-attention=2 samgan-8-no-norm=2 msg-gan-6-rate-0.0001=2 samgan-1=2 samgan-2=2 msg-gan-7=2"
    rows="$rows msg-gan-11=2 samgan-5=2" length="--kimg 200 --score-at 100"
    ;;
rest)
    rows="msg-gan-2 msg-gan-3 msg-gan-4 msg-gan-5 msg-gan-8 msg-gan-9 msg-gan-10 samgan-3 samgan-4 samgan-6 samgan-7"
    rows="$rows samgan-8-as-printed samgan-8-doubled samgan-8-unit samgan-8-equalized"
    rows="$rows samgan-plus samgan-plus-attention samgan-vision" length="--kimg 100"
    ;;
full) rows="samgan-8 msg-gan-6" length="--kimg 1808 --score-at 100 200 400" ;;
faces) rows="msg-gan-1" length="--kimg 100 --faces $4" second="" ;; # the radiograph features see grey images only
*) echo "run.sh: PART is headline, factors, rest, full or faces, not $part" >&2 && exit 2 ;;
esac
rows=${ROWS:-$rows}
# shellcheck disable=SC2086
exec samgan table2 "$data" --out "$here/$part" --rows $rows $length --scale cpu --network.max_channels=32 \
    --training.batch_size=8 --training.precision=fp32 --snapshot-every-kimg 20 --count 1500 \
    --features "$features" $second --no-claims --ray local --cores-per-job 1
