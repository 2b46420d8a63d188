"""A picture as a page of its own, which scrolls.

The viewer of `snakemake --report` centres pictures in the window, so the top of a tall one is out of
reach. It shows pages in a frame with bars.
"""

from __future__ import annotations

import base64
import html
from pathlib import Path

from wsss.artifacts.atomic import write_text

_PAGE = """<!doctype html>
<html lang="en"><meta charset="utf-8"><title>{title}</title>
<style>body {{ margin: 0; padding: 12px; background: white }}</style>
<img alt="{title}" src="data:image/png;base64,{content}">
</html>
"""


def write_picture_page(path: Path, picture: Path, title: str) -> None:
    """Write a page with a PNG inside.

    Args:
        path: HTML to write.
        picture: the PNG.
        title: of the page.
    """
    content = base64.b64encode(picture.read_bytes()).decode("ascii")
    write_text(path, _PAGE.format(title=html.escape(title), content=content))
