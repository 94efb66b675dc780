"""The site's pages that lie above docs/, the notebooks, and links to what is no page: the repository's files.

mkdocs calls these functions (mkdocs.yml). README.md is the first page. Links between pages stay links between
pages; one to any other file of the repository is followed to see that it is there, then kept as text alone.
"""

from __future__ import annotations

import json
import posixpath
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
ABOVE = {
    "README.md": "index.md",
    "ARCHITECTURE.md": "architecture.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
LINK = re.compile(r"\[([^\]]*)\]\((?!https?:|mailto:|#)([^)#\s]+)(#[^)\s]*)?\)")
PICTURE = re.compile(r'(src=")(?!https?:|data:)([^"]+)"')


def on_files(files: Files, config) -> Files:
    """Add the pages above docs/ and the notebooks, with their names of the site."""
    for name, page in ABOVE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    for notebook in (ROOT / "docs").glob("*.ipynb"):
        files.append(File.generated(config, f"{notebook.stem}.md", content="\n\n".join(_cells(notebook))))
    return files


def _cells(notebook: Path) -> Iterator[str]:
    """A notebook as Markdown: its words, its code, what that printed and drew."""
    for cell in json.loads(notebook.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        yield source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```"
        for output in cell.get("outputs", ()):
            if picture := output.get("data", {}).get("image/png"):
                yield f'<img alt="what it drew" src="data:image/png;base64,{"".join(picture).strip()}">'
            elif "text" in output:
                yield f"```text\n{''.join(output['text'])}```"


def on_page_markdown(text: str, page, config, files: Files) -> str:
    """Links as the site has them. PluginError for one that leads nowhere."""
    folder = "" if page.file.src_uri in ABOVE.values() else "docs"

    def target(link: str) -> str | None:
        """A file's place on the site; None where it has none."""
        path = posixpath.normpath(posixpath.join(folder, link))
        if not (ROOT / path).exists():
            raise PluginError(f"{page.file.src_uri}: {link} leads nowhere")
        if path in ABOVE:
            return ABOVE[path]
        path = re.sub(r"^docs/([^/]+)\.ipynb$", r"docs/\1.md", path)
        inside = path.removeprefix("docs/")
        return inside if path.startswith("docs/") and files.get_file_from_path(inside) else None

    def rewritten(match: re.Match) -> str:
        words, link, anchor = match.groups()
        place = target(link)
        return words if place is None else f"[{words}]({place}{anchor or ''})"

    text = PICTURE.sub(lambda match: f'{match[1]}{target(match[2])}"', text)
    return LINK.sub(rewritten, text)
