#!/usr/bin/env bash
# What several GPUs of this node do: the losses of one rank, the step's scaling, a kill and a resume, DALI.
# Usage: benchmarks/multi_gpu.sh [OUT.json] [RANKS]     (default: multi-gpu.json, all GPUs, at most 8)
# Then `python benchmarks/gpu_page.py --ranks OUT.json` puts the figures into docs/benchmarks-gpu.md.
set -euo pipefail
out=$(realpath -m "${1:-multi-gpu.json}")
cd "$(dirname "${BASH_SOURCE[0]}")/.."
export PYTHONPATH=${PYTHONPATH:+$PYTHONPATH:}$PWD OMP_NUM_THREADS=${OMP_NUM_THREADS:-4}
python=${PYTHON:-python}
ranks=${2:-$("$python" -c 'import torch; print(min(torch.cuda.device_count(), 8))')}
if ((ranks < 2)); then
    echo "multi_gpu.sh: 2 to 8 GPUs are needed, torch finds $ranks. On a CPU, to see that it runs: MULTI_GPU_SMALL=1 $0 OUT.json 2" >&2
    exit 2
fi
exec "$python" benchmarks/multi_gpu.py "$out" --ranks "$ranks" ${MULTI_GPU_SMALL:+--small}
