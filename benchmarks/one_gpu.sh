#!/usr/bin/env bash
# What one GPU shows in 15 minutes, as far as they reach: the row that was never whole first, then the tests that need
# a GPU, the other rows with the compiler at its best, the profile with its bytes, convolutions one by one, the sampler.
# Usage: benchmarks/one_gpu.sh [FOLDER] [MINUTES]     (default: one-gpu, 15)
# Everything is kept in FOLDER as it comes, and docs/benchmarks-gpu.md and README.md are made of it at the end.
set -uo pipefail
folder=$(realpath -m "${1:-one-gpu}")
minutes=${2:-15}
cd "$(dirname "${BASH_SOURCE[0]}")/.." || exit
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$PWD
python=${PYTHON:-python}
if ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "one_gpu.sh: a GPU is needed, and torch finds none." >&2
    exit 2
fi
mkdir -p "$folder"
ends=$((SECONDS + 60 * minutes))
status=0

# At most so many seconds, and no more than are left; what failed is said, and the next stage begins.
stage() {
    local name=$1 limit=$2 left=$((ends - SECONDS)) began=$SECONDS code
    shift 2
    if ((left < 20)); then
        echo "$name: no time left"
        status=1
        return
    fi
    timeout $((limit < left ? limit : left)) "$python" "$@" >"$folder/$name.log" 2>&1
    code=$?
    echo "$name: exit code $code after $((SECONDS - began)) s ($folder/$name.log)"
    ((code == 0)) || status=1
}
row() {
    stage "$1" "$2" -m pytest benchmarks/bench_step_gpu.py --benchmark-only --rows "$folder/rows.jsonl" -k "$3" --parts "$4"
}

row step-n64 240 s64-k3-n64 floor,nvlabs,compile
stage tests 240 -m pytest -q -m gpu tests/ops tests/training tests/models tests/runtime tests/sampling
row step-n16 300 "s64-k3 and not n4 and not n64" floor,nvlabs,compile,autotune,plain
row step-n4 60 "s64-k3-n4" floor,nvlabs
stage profile 120 benchmarks/profile_step.py "$folder/profile.json" --sizes 4 16 64
stage convolutions 120 benchmarks/convolutions.py "$folder/convolutions.json" --largest
stage sampler 300 -m pytest benchmarks/bench_sampler_gpu.py --benchmark-only --rows "$folder/rows.jsonl"

made=()
[[ -s $folder/rows.jsonl ]] && made+=(--rows "$folder/rows.jsonl")
[[ -s $folder/profile.json ]] && made+=(--profile "$folder/profile.json")
((${#made[@]})) && { "$python" benchmarks/gpu_page.py "${made[@]}" || status=1; }
exit $status
