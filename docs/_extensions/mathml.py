"""Sphinx extension: mathematics as MathML, which browsers draw without a script or a network."""

from __future__ import annotations

from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

_log = logging.getLogger(__name__)
_converter = LatexToMathML(fancy_error=False)


def setup(app: Sphinx) -> dict[str, bool]:
    """Register with Sphinx."""
    app.add_html_math_renderer("mathml", (_inline, None), (_display, None))
    return {"parallel_read_safe": True}


def _inline(writer: Any, node: nodes.math) -> None:
    writer.body.append(_mathml(node, display=False))
    raise nodes.SkipNode


def _display(writer: Any, node: nodes.math_block) -> None:
    writer.body.append(writer.starttag(node, "div", CLASS="math"))
    writer.body.append(_mathml(node, display=True) + "</div>")
    raise nodes.SkipNode


def _mathml(node: nodes.Element, *, display: bool) -> str:
    try:
        return _converter.convert_with_local_state(node.astext(), displaystyle=display)
    except LatexError as error:
        _log.warning("no formula: %r (%s)", node.astext(), error, location=node)
        return ""
