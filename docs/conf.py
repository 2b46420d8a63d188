"""Sphinx configuration of the documentation: `make docs` builds it into docs/_build/html."""

from __future__ import annotations

import sys
from pathlib import Path

DOCS = Path(__file__).parent
sys.path[:0] = [str(DOCS / "_extensions"), str(DOCS.parent)]

from wsss import __version__  # noqa: E402

project = "wsss"
author = "The wsss developers"
version = release = __version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "anchors",
    "generated",
    "mathml",
]
default_role = "code"
autodoc_member_order = "bysource"
maximum_signature_line_length = 80
exclude_patterns = ["_build", "_extensions", "notebooks"]
myst_enable_extensions = ["attrs_block", "attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_fence_as_directive = {"math"}
myst_heading_anchors = 3
myst_update_mathjax = False
highlight_language = "text"
html_math_renderer = "mathml"
html_theme = "furo"
html_title = f"wsss {version}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_copyright = False
html_show_search_summary = False  # would need a server
suppress_warnings = ["myst.header"]
