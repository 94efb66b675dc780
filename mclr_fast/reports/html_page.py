"""One HTML page that opens offline: its style, and tables, pictures and lists as HTML."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape

from .figures import Picture

STYLE = """
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; background: #fff; color: #222;
  font: 1rem/1.5 system-ui, sans-serif; }
h1 { font-size: 1.5rem; margin: 0; } h1 + p { margin: .2rem 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
.headline { font-size: 1.25rem; line-height: 1.4; margin: 1rem 0; padding: .6rem 1rem;
  border-left: .3rem solid #D55E00; background: #faf7f4; }
.note { color: #555; font-size: .92rem; max-width: 56rem; } ul.note { padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
  gap: 1rem 1.5rem; }
.figures img { width: 100%; max-width: 40rem; height: auto; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: min(100%, 52rem);
  font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; } .text { text-align: left; }
thead th { border-bottom: 2px solid #999; vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
tbody { border-bottom: 1px solid #ccc; } tbody th { font-weight: normal; white-space: nowrap; }
tr.best th, tr.best td { background: #fde8d7; font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: #555; } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { margin: 1rem auto; } th, td { padding: .2rem .45rem; }
  table { font-size: .85rem; } .headline { font-size: 1.1rem; } dl { display: block; }
  dd { margin-bottom: .4rem; } }
@media print { body { margin: 0; max-width: none; font-size: 9.5pt; } table { font-size: 8pt; }
  th, td { padding: .1rem .4rem; } .figures { grid-template-columns: 1fr 1fr; }
  img, tr, .headline { break-inside: avoid; } h2, h2 + .note { break-after: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
"""


def page(title: str, *parts: str) -> str:
    """A whole page; title is text, the parts are HTML."""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{"".join(parts)}</body>
</html>
"""


def section(heading: str, note: str, pictures: Sequence[Picture]) -> str:
    """A heading, a sentence below it and its pictures; nothing without pictures."""
    if not pictures:
        return ""
    images = "\n".join(
        f'<img alt="{escape(p.alt)}" src="data:image/png;base64,{b64encode(p.png).decode()}">'
        for p in pictures
    )
    note = f'<p class="note">{escape(note)}</p>\n' if note else ""
    return f'<h2>{heading}</h2>\n{note}<div class="figures">\n{images}\n</div>\n'


def bullets(sentences: Iterable[str]) -> str:
    """Sentences as a list; nothing without any."""
    items = "".join(f"<li>{escape(sentence)}</li>\n" for sentence in sentences)
    return f'<ul class="note">\n{items}</ul>' if items else ""


class Html(str):
    """A cell that is HTML already."""


def table(
    head: Sequence[str], body: Sequence[Sequence[tuple[list[str], bool]]], text_columns: int = 0
) -> str:
    """`body` holds groups of (cells, marked); a row's first cell is its heading, as many more are text."""

    def row(cells: Sequence[str], tag: str, scope: str = "") -> str:
        kinds = [' class="text"' if i < text_columns else "" for i in range(len(cells))]
        written = [cell if isinstance(cell, Html) else escape(cell) for cell in cells]
        return "".join(
            f"<{tag}{scope}{kind}>{cell}</{tag}>" for kind, cell in zip(kinds, written, strict=True)
        )

    def line(cells: Sequence[str], marked: bool) -> str:
        mark = ' class="best"' if marked else ""
        return f'<tr{mark}><th scope="row">{escape(cells[0])}</th>{row(cells[1:], "td")}</tr>\n'

    heading = f'<th scope="col">{escape(head[0])}</th>' + row(head[1:], "th", ' scope="col"')
    groups = "".join(f"<tbody>\n{''.join(line(*entry) for entry in group)}</tbody>\n" for group in body)
    return f'<div class="scroll"><table>\n<thead><tr>{heading}</tr></thead>\n{groups}</table></div>\n'
