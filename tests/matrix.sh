#!/usr/bin/env bash
# The fast tests under the oldest and the newest that pyproject.toml promises, a clean environment a cell:
#
#     tests/matrix.sh                     every cell
#     tests/matrix.sh 3.10-old-1          some
#     PYTEST_ARGS="tests/data" tests/matrix.sh 3.13-new-2
#
# A cell is Python, torch (old: the lowest of pyproject.toml; new: the newest there is), and numpy's major; the
# other packages are the newest that go with those. numpy 1 ends at Python 3.12. Pythons are python3.10 and the
# like, or those of pyenv. A line a cell, `passed CELL: ...` or `FAILED CELL: ...`; exit 0 when all pass.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

CELLS=(3.10-old-1 3.10-new-2 3.13-old-2 3.13-new-2)

bound() { # bound PACKAGE: the version that pyproject.toml asks for at least
    sed -n "s/^ *\"$1>=\([0-9.]*\)\".*/\1/p" pyproject.toml | head -n 1
}

python_of() { # python_of VERSION
    local found
    for found in "python$1" "$HOME/.pyenv/versions/$1".*/bin/python; do
        if [[ $("$found" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) == "$1" ]]; then
            command -v "$found"
            return
        fi
    done
    return 1
}

run_cell() { # run_cell CELL FOLDER
    local version torch major python wanted
    IFS=- read -r version torch major <<<"$1"
    python=$(python_of "$version") || { echo "there is no Python $version here"; return 1; }
    wanted=("numpy<2" "numpy>=$(bound numpy)")
    [[ $major == 1 ]] || wanted=("numpy>=2")
    [[ $torch == new ]] && wanted+=("torch>=$(bound torch)") || wanted+=("torch~=$(bound torch).0")
    "$python" -m venv "$2/venv" || return 1
    unset PYTHONPATH PYTHONHOME PYTEST_ADDOPTS
    export PATH="$2/venv/bin:$PATH" MCLR_FAST_CUDA=0
    mkdir "$2/tree"
    git ls-files -z --cached --others --exclude-standard | xargs -0 cp --parents -t "$2/tree"
    cd "$2/tree" || return 1
    pip install --quiet --progress-bar off "${wanted[@]}" -e ".[dev]" || return 1
    python -c 'import sys, torch, numpy; print("with", sys.version.split()[0], torch.__version__, numpy.__version__)'
    # shellcheck disable=SC2086
    pytest -q -n 2 -p no:cacheprovider ${PYTEST_ARGS:-}
}

status=0
for cell in "${@:-${CELLS[@]}}"; do
    if [[ " ${CELLS[*]} " != *" $cell "* ]]; then
        echo "there is no cell $cell; the cells are ${CELLS[*]}" >&2
        exit 2
    fi
    work=$(mktemp -d)
    if (run_cell "$cell" "$work") >"$work/log" 2>&1; then
        word=passed
    else
        word=FAILED status=1
        tail -n 60 "$work/log"
    fi
    echo "$word $cell: $(grep -h '^with ' "$work/log" | tail -n 1) $(tail -n 1 "$work/log")"
    rm -rf "$work"
done
exit $status
