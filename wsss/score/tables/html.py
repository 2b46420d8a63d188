"""A table as one self-contained HTML page: no script, no other file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from html import escape

from wsss.score.tables.rows import Grid, Table

_STYLE = """
:root { color-scheme: light; }
body { font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; color: #1d2329;
       background: #fff; margin: 1.5rem; }
h1 { font-size: 1.2rem; margin: 0 0 1rem; } h2 { font-size: 1rem; margin: 1.6rem 0 .5rem; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
th, td { padding: .28rem .6rem; text-align: right; white-space: nowrap;
         border-bottom: 1px solid #e3e7eb; }
th { font-weight: 600; white-space: normal; border-bottom: 2px solid #8a949e;
     vertical-align: bottom; }
td:first-child, th:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td.text, th.text { text-align: left; }
tbody th { text-align: left; border-bottom: 1px solid #8a949e; padding-top: .9rem;
           white-space: nowrap; }
td small { color: #505a64; }
p { color: #505a64; max-width: 60rem; margin: .25rem 0; }
tbody tr:hover td { background-color: #f2f6fa; }
ul { color: #505a64; font-size: .85rem; padding-left: 1.1rem; max-width: 60rem;
     overflow-wrap: anywhere; }
"""
_SHADE = "68, 119, 170"  # a blue that stays apart from white for every kind of colour vision


def html_page(table: Table) -> str:
    """A page with the table, the IoU of each class (shaded by value) and the notes."""
    notes = "\n".join(f"<li>{escape(note)}</li>" for note in table.notes)
    words = "\n".join(f"<p>{escape(text)}</p>" for text in table.words)
    second = ""
    if table.class_rows:
        grid = _grid(table.class_columns, table.class_rows, shaded=True)
        second = f"<h2>{escape(table.class_title)}</h2>\n{grid}"
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(table.title)}</title>
<style>{_STYLE}</style>
</head>
<body>
<h1>{escape(table.title)}</h1>
{_grid(table.columns, table.rows, shaded=False, headings=table.headings, best=table.best)}
{words}
{second}
{"".join(map(_further, table.more))}
<ul>
{notes}
</ul>
</body>
</html>
"""


def _further(grid: Grid) -> str:
    return (
        f"<h2>{escape(grid.title)}</h2>\n{_grid(grid.columns, grid.rows, shaded=grid.is_shaded)}\n"
    )


def _grid(
    columns: Sequence[str],
    rows: Sequence[Sequence[str]],
    *,
    shaded: bool,
    headings: Mapping[int, str] | None = None,
    best: Set[tuple[int, int]] = frozenset(),
) -> str:
    texts = [any(not _is_numeric(row[i]) for row in rows) for i in range(len(columns))]

    def cell(tag: str, text: str, column: int, is_best: bool = False) -> str:
        style = ' class="text"' if texts[column] else ""
        if shaded and tag == "td" and _is_number(text) and text:
            style = f' style="background-color: rgba({_SHADE}, {float(text) / 200:.2f})"'
        return f"<{tag}{style}>{_marked(text, is_best)}</{tag}>"

    def line(tag: str, cells: Sequence[str], row: int = -1) -> str:
        marked = "".join(cell(tag, text, i, (row, i) in best) for i, text in enumerate(cells))
        return f"<tr>{marked}</tr>"

    body = []
    for index, row in enumerate(rows):
        if headings and index in headings:
            body.append(f'<tr><th colspan="{len(columns)}">{escape(headings[index])}</th></tr>')
        body.append(line("td", row, index))
    content = "\n".join(body)
    return (
        f'<div class="wide"><table>\n<thead>{line("th", columns)}</thead>\n'
        f"<tbody>\n{content}\n</tbody>\n</table></div>"
    )


def _marked(text: str, is_best: bool) -> str:
    """A number in bold where it is the best; its interval small, in brackets."""
    if not _is_numeric(text) or "(" not in text:
        return f"<b>{escape(text)}</b>" if is_best else escape(text)
    number, interval = text.split(" (", 1)
    shown = f"<b>{escape(number)}</b>" if is_best else escape(number)
    return f"{shown} <small>({escape(interval)}</small>"


def _is_numeric(text: str) -> bool:
    """A number, or one with a deviation or an interval; aligned to the right."""
    return set(text) <= set("0123456789.+-–…±()? ")


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "", 1).isdigit()
