"""Sphinx extension: anchors that pages write as HTML, so that forges know them too."""

from __future__ import annotations

import re

from docutils import nodes
from sphinx.application import Sphinx


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.connect("source-read", _as_attributes)
    app.connect("doctree-read", _as_targets)
    return {"parallel_read_safe": True}


def _as_attributes(app: Sphinx, name: str, source: list[str]) -> None:
    """``<a id="eq-1"></a>`` becomes the attribute of the paragraph that follows it."""
    source[0] = re.sub(r'^<a id="([^"]+)"></a>$', r"{#\1}", source[0], flags=re.MULTILINE)


def _as_targets(app: Sphinx, doctree: nodes.document) -> None:
    """Let other pages link to them, which MyST allows for headings alone."""
    slugs = app.env.metadata[app.env.docname].setdefault("myst_slugs", {})
    for node in doctree.findall(nodes.Element):
        for name in node.get("ids", ()):
            if name.startswith("eq-"):
                slugs.setdefault(name, (node.line, name, f"({name.removeprefix('eq-')})"))
