"""The site's pages that lie above docs/, and links to what is no page: the files of the repository.

mkdocs calls these functions (mkdocs.yml). README.md is the first page; links between pages stay links between pages,
and a link to any other file of the repository is followed to see that it is there, then kept as text alone.
"""

from __future__ import annotations

import posixpath
import re
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
    """Add the pages above docs/, with their names of the site."""
    for name, page in ABOVE.items():
        files.append(File.generated(config, page, content=(ROOT / name).read_text(encoding="utf-8")))
    return files


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
        inside = path.removeprefix("docs/")
        return inside if path.startswith("docs/") and files.get_file_from_path(inside) else None

    def rewritten(match: re.Match) -> str:
        words, link, anchor = match.groups()
        place = target(link)
        return words if place is None else f"[{words}]({place}{anchor or ''})"

    text = PICTURE.sub(lambda match: f'{match[1]}{target(match[2])}"', text)
    return LINK.sub(rewritten, text)
