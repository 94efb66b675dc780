"""docs/robustness.md: what is made of other people's files, machines and habits, a line a test.

    python tests/robustness.py > docs/robustness.md

A test is on the page when it, or its file's `pytestmark`, is marked `pytest.mark.robust(kind)`, a kind of
KINDS: its name is the example, the first paragraph of its docstring says what happens. The files are parsed,
not imported.
"""

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

TESTS = Path(__file__).resolve().parent
KINDS = {
    "classes": "What is a class, and what an image",
    "pixels": "What a pixel means",
    "judging": "Judges that do not know the images",
    "environment": "Variables of the environment, devices",
    "identity": "Whether it is the same run, the same data",
    "states": "Saved states, and what lies beside them",
    "ranks": "Errors of one rank among several",
    "conversion": "A converted network is the same network",
    "rounding": "Weights written with fewer bits",
    "producers": "Files as other programs write them",
    "wrappers": "What is put around a network, and files that are something else",
    "archives": "Archives, their names and their parts",
    "file systems": "Disks that cannot do everything, or no more",
    "talking": "Terminals, reports and logs that break",
    "processes": "Two of them in one folder; signals",
    "batches": "Minibatches that cannot be learned from",
    "arguments": "Numbers and paths on the command line",
    "drop-in": "NVIDIA's own loop",
}
HEAD = """\
# Other people's files, machines and habits

What happens, kind by kind. Each line is a test: its name, and what its docstring says.
`python tests/robustness.py` writes this page from them, and `tests/test_robustness.py` holds it to them.
"""


class Line(NamedTuple):
    """One marked test. says: its docstring's first paragraph, "" where it has none."""

    kind: str
    file: str
    name: str
    says: str


def marked(path: Path) -> Iterator[Line]:
    """The marked tests of a file, in its order; ValueError for a kind that KINDS lacks."""
    module = ast.parse(path.read_text())
    of_file = [kind for node in module.body if _is_pytestmark(node) for kind in _kinds(node.value)]
    for function in (node for node in module.body if isinstance(node, ast.FunctionDef)):
        if not function.name.startswith("test_"):
            continue
        own = [kind for decorator in function.decorator_list for kind in _kinds(decorator)]
        for kind in own or of_file:
            if kind not in KINDS:
                raise ValueError(f"{path}: {function.name} is robust({kind!r}); kinds: {', '.join(KINDS)}")
            says = (ast.get_docstring(function) or "").split("\n\n")[0]
            yield Line(kind, path.relative_to(TESTS).as_posix(), function.name, " ".join(says.split()))


def lines() -> list[Line]:
    """All marked tests, by kind, file and place."""
    found = [line for path in sorted(TESTS.rglob("test_*.py")) for line in marked(path)]
    return sorted(found, key=lambda line: list(KINDS).index(line.kind))


def page(found: list[Line]) -> str:
    """The page, Markdown."""
    text = [HEAD]
    for kind, title in KINDS.items():
        rows = [line for line in found if line.kind == kind]
        if rows:
            text += [f"## {title}", "", "| example | what happens |", "|---|---|"]
            text += [_row(line) for line in rows]
            text += [""]
    return "\n".join(text)


def _row(line: Line) -> str:
    example = line.name.removeprefix("test_").replace("_s_", "'s ").replace("_", " ")
    says = line.says.replace("|", "\\|")
    return f"| [{example}](../tests/{line.file}) | {says} |"


def _is_pytestmark(node: ast.stmt) -> bool:
    return isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "pytestmark"


def _kinds(node: ast.expr) -> list[str]:
    """Kinds of the robust marks in a decorator or a list of marks."""
    calls = [call for call in ast.walk(node) if isinstance(call, ast.Call)]
    found = [call for call in calls if ast.unparse(call.func) == "pytest.mark.robust"]
    return [ast.literal_eval(call.args[0]) for call in found]


if __name__ == "__main__":
    print(page(lines()), end="")
