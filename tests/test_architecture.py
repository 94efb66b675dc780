"""ARCHITECTURE.md is the map: it names every file, none that is not there, in paragraphs that can be read."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "mclr_fast"
PAGE = (ROOT / "ARCHITECTURE.md").read_text()
BY_ROOM = ("ops/reference/", "ops/triton_kernels/")  # one stem an op: their rooms have a line
LONGEST = 5  # lines of a paragraph


def listed(title):
    """Each list of files in a section: (path, what is said of it)."""
    section = PAGE.split(f"## {title}\n")[1].split("\n## ")[0]
    lists = re.findall(r"(?:^    .*\n)+", section, re.MULTILINE)
    return [re.findall(r"^    (\S+) +(\S.*)$", text, re.MULTILINE) for text in lists]


def test_every_file_has_one_line():
    paths = [path for files in listed("Every file") for path, _ in files]
    found = (path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))
    files = {path for path in found if not path.endswith("__init__.py") and not path.startswith(BY_ROOM)}
    assert len(paths) == len(set(paths)) > 150
    assert not files - set(paths)


def test_every_file_that_is_named_is_there():
    lists = [*listed("Every file"), *listed("Two walks")]
    in_lists = {path for files in lists for path, _ in files if "<" not in path}
    in_text = set(re.findall(r"`([\w/]+/\w+\.(?:py|md|h))`", PAGE))
    for path in in_lists - {"ops/lib/"} | in_text:  # ops/lib: once setup.py has run
        assert (PACKAGE / path).exists() or (ROOT / path).exists(), path


@pytest.mark.parametrize(("walk", "most"), [(0, 9), (1, 7)])
def test_a_walk_is_short_and_visits_a_file_once(walk, most):
    files = [path for path, _ in listed("Two walks")[walk]]
    assert len(files) == len(set(files)) <= most


def test_paragraphs_are_short():
    """Of text and of lists; headings, tables and lists of files are none."""
    blocks = [block.strip("\n") for block in re.split(r"\n\s*\n|\n(?=- )", PAGE)]
    paragraphs = [block for block in blocks if not block.startswith(("#", "|", "    "))]
    assert len(paragraphs) > 60
    assert not [text for text in paragraphs if len(text.splitlines()) > LONGEST]
