"""`python -m mclr_fast.theory`, and docs/theory.md, whose numbers are what it computes."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mclr_fast.theory.__main__ import main

DOCS = Path(__file__).parents[2] / "docs"
PAGE = (DOCS / "theory.md").read_text()
ROWS = re.findall(r"^\| `(\w+)\.([\w.]+)` \| .* \| ([^|]*\d[^|]*) \|$", PAGE, re.MULTILINE)
SLOW = {"error_models", "gamma_powered"}
STUDIES = [
    "three_forms",
    "theorem1",
    "own_class",
    "error_models",
    "gamma_powered",
    "cfg",
    "variants",
    "unweighted",
]


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in STUDIES]
)
def test_the_page_states_what_is_computed(study, name):
    """Every number of a study is on the page, to three digits or as a bound."""
    stated = {key: value for of, key, value in ROWS if of == name}
    numbers = study(name).numbers
    assert stated.keys() == numbers.keys()
    for key, value in numbers.items():
        if stated[key].startswith("<"):
            assert 0 <= value < float(stated[key][1:]), key
        else:
            on_page = [float(v) for v in stated[key].split(",")]
            assert on_page == pytest.approx(
                value if isinstance(value, list) else [value], rel=6e-3, abs=1e-9
            ), key


def test_the_page_names_no_other_study_and_its_pictures_exist():
    assert {of for of, _, _ in ROWS} == set(STUDIES)
    pictures = re.findall(r"\]\((figures/[^)]+)\)", PAGE)
    assert len(pictures) == 6
    for picture in pictures:
        assert (DOCS / picture).is_file(), picture


@pytest.mark.slow
def test_the_door_writes_numbers_and_pictures(tmp_path, study, capsys):
    assert main(["--outdir", str(tmp_path / "new" / "theory")]) == 0
    written = json.loads((tmp_path / "new/theory/theory.json").read_text())
    assert list(written) == STUDIES
    for name in STUDIES:  # computed twice in this session: the same to the last digit
        assert written[name] == study(name).numbers
    drawn = {path.name for path in (tmp_path / "new/theory").glob("*.png")}
    assert drawn == {Path(picture).name for picture in re.findall(r"figures/theory-[\w-]+\.png", PAGE)}
    assert "theorem1 total_variation=" in capsys.readouterr().out


def test_an_outdir_that_is_a_file_is_one_line(tmp_path, capsys):
    (tmp_path / "theory").write_text("")
    assert main(["--outdir", str(tmp_path / "theory")]) == 1
    error = capsys.readouterr().err
    assert error.startswith("error: cannot write to --outdir") and error.count("\n") == 1


def test_help_has_an_example_and_needs_no_torch():
    program = (
        "import sys\nfrom mclr_fast.theory.__main__ import main\n"
        "try: main(['--help'])\nfinally: assert not {'torch', 'matplotlib'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "python -m mclr_fast.theory --outdir theory" in done.stdout
