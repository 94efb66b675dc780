"""One HTML page that opens offline: its style and contents; tiles, tables, pictures and lists as HTML."""

from __future__ import annotations

import re
from base64 import b64encode
from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from .figures.style import Picture

STYLE = """
:root { color-scheme: light dark; --page: #fff; --text: #222; --quiet: #555; --line: #ccc; --rule: #999;
  --card: #faf7f4; --mark: #fde8d7; --better: #00694e; --worse: #a33c00; --link: #0060a0; }
@media (prefers-color-scheme: dark) { :root { --page: #16181b; --text: #e4e4e2; --quiet: #a5a9ae;
  --line: #3a3e44; --rule: #6b7078; --card: #212429; --mark: #4a2c17; --better: #4cc8a0; --worse: #f08a4b;
  --link: #7ab8f0; } img.chart { filter: invert(.91) hue-rotate(180deg); } }
body { margin: 2rem auto; max-width: 66rem; padding: 0 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; }
a { color: var(--link); }
h1 { font-size: 1.5rem; margin: 0; } h1 + p { margin: .2rem 0; }
h2 { font-size: 1.15rem; margin: 2.5rem 0 .5rem; }
.headline { font-size: 1.2rem; line-height: 1.4; margin: 1rem 0; padding: .6rem 1rem;
  border-left: .3rem solid #D55E00; background: var(--card); }
nav { font-size: .92rem; margin: 1rem 0; } nav a { margin-right: 1rem; white-space: nowrap; }
.tiles { display: grid; margin: 1rem 0;
  grid-template-columns: repeat(auto-fit, minmax(9.5rem, 1fr)); gap: .7rem; }
.tile { background: var(--card); border-radius: .4rem; padding: .5rem .8rem; }
.tile b { display: block; font-size: 1.15rem; font-variant-numeric: tabular-nums; }
.tile span { color: var(--quiet); font-size: .88rem; }
.tile .better { color: var(--better); } .tile .worse { color: var(--worse); }
.note { color: var(--quiet); font-size: .92rem; max-width: 56rem; } ul.note { padding-left: 1.2rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 25rem), 1fr));
  gap: 1rem 1.5rem; }
.figures img { width: 100%; max-width: 46rem; height: auto; } img.samples { border-radius: .4rem; }
summary { cursor: pointer; margin: .6rem 0; color: var(--link); }
pre { background: var(--card); padding: .6rem 1rem; overflow-x: auto; font-size: .88rem; margin: .4rem 0; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-size: .92rem; min-width: min(100%, 52rem);
  font-variant-numeric: tabular-nums; }
th, td { padding: .2rem .5rem; text-align: right; } .text { text-align: left; }
thead th { border-bottom: 2px solid var(--rule); vertical-align: bottom; }
th:first-child { text-align: left; position: sticky; left: 0; background: var(--page); }
tbody { border-bottom: 1px solid var(--line); } tbody th { font-weight: normal; white-space: nowrap; }
tr.best th, tr.best td { background: var(--mark); font-weight: bold; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .2rem 1.2rem; }
dt { color: var(--quiet); } dd { margin: 0; overflow-wrap: anywhere; }
@media (max-width: 40rem) { body { margin: 1rem auto; } th, td { padding: .2rem .45rem; }
  table { font-size: .85rem; } .headline { font-size: 1.05rem; } dl { display: block; }
  dd { margin-bottom: .4rem; } .tiles { grid-template-columns: 1fr 1fr; } }
@media print { :root { color-scheme: light; } body { margin: 0; max-width: none; font-size: 9.5pt; }
  table { font-size: 8pt; } nav { display: none; }
  th, td { padding: .1rem .4rem; } .figures { grid-template-columns: 1fr 1fr; }
  img, tr, .headline, .tile { break-inside: avoid; } h2, h2 + .note { break-after: avoid; }
  .scroll { overflow: visible; } * { print-color-adjust: exact; } }
"""
HEADING = re.compile(r'<h2 id="([^"]*)">(.*?)</h2>')


def page(title: str, *parts: str) -> str:
    """A whole page; title is text, the parts are HTML. Its contents stand above the first heading."""
    body = "".join(parts)
    if first := HEADING.search(body):
        body = body[: first.start()] + _contents(body) + body[first.start() :]
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<h1>{escape(title)}</h1>
{body}</body>
</html>
"""


def _contents(body: str) -> str:
    """Links to the headings of a page; nothing where there are only one or two."""
    found = HEADING.findall(body)
    links = " ".join(f'<a href="#{place}">{title}</a>' for place, title in found)
    return f"<nav>{links}</nav>\n" if len(found) > 2 else ""


def heading(text: str) -> str:
    """A section's heading, which the page's contents link to."""
    place = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    return f'<h2 id="{place}">{escape(text, quote=False)}</h2>\n'


def section(title: str, note: str, pictures: Sequence[Picture], folded: Sequence[Picture] = ()) -> str:
    """A heading, a sentence below it and its pictures, some of them folded away; nothing without pictures."""
    if not pictures:
        return ""
    note = f'<p class="note">{escape(note)}</p>\n' if note else ""
    more = fold("All rows", _pictures(folded)) if folded else ""
    return f"{heading(title)}{note}{_pictures(pictures)}{more}"


def _pictures(pictures: Sequence[Picture]) -> str:
    images = "\n".join(
        f'<img class="{"chart" if p.is_chart else "samples"}" alt="{escape(p.alt)}" '
        f'src="data:image/png;base64,{b64encode(p.png).decode()}">'
        for p in pictures
    )
    return f'<div class="figures">\n{images}\n</div>\n'


def fold(title: str, content: str) -> str:
    """HTML that is seen when its title is clicked."""
    return f"<details><summary>{escape(title)}</summary>\n{content}</details>\n"


def code(*lines: str) -> str:
    """Commands, to be copied."""
    return f"<pre>{escape(chr(10).join(lines))}</pre>\n"


def terms(items: Iterable[tuple[str, str]]) -> str:
    """Terms and what they are; nothing without any."""
    entries = "".join(f"<dt>{escape(term)}</dt><dd>{escape(text)}</dd>\n" for term, text in items)
    return f"<dl>\n{entries}</dl>\n" if entries else ""


class Tile(NamedTuple):
    """A number that a reader sees first; verdict: "better", "worse" or ""; remark: in its place."""

    title: str
    value: str
    verdict: str = ""
    remark: str = ""


def tiles(found: Iterable[Tile]) -> str:
    """Tiles side by side; nothing without any."""
    boxes = "".join(
        f'<div class="tile"><span>{escape(tile.title)}</span><b>{escape(tile.value)}</b>'
        f'<span class="{tile.verdict}">{escape(tile.remark or tile.verdict)}</span></div>\n'
        for tile in found
    )
    return f'<div class="tiles">\n{boxes}</div>\n' if boxes else ""


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
