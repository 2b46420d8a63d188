"""CITATION.cff names the paper of every method, with its DOI or arXiv number."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

import wsss

ROOT = Path(__file__).parents[1]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text("utf-8"))
_ID = re.compile(r"arXiv:\d{4}\.\d{4,5}|10\.\d{4,9}/[\w.-]*\w")


def _ids(text: str) -> set[str]:
    return set(_ID.findall(text))


def test_the_format() -> None:
    assert {"cff-version", "message", "title", "authors"} <= CITATION.keys()
    assert CITATION["cff-version"] == "1.2.0"
    assert CITATION["version"] == wsss.__version__


@pytest.mark.parametrize("reference", CITATION["references"], ids=lambda item: item["title"])
def test_reference(reference: dict[str, Any]) -> None:
    assert {"type", "title", "authors"} <= reference.keys()
    assert reference["type"] in {"article", "conference-paper"}
    assert all({"family-names", "given-names"} <= author.keys() for author in reference["authors"])
    assert isinstance(reference["year"], int)
    assert "doi" in reference or reference["identifiers"]
    for identifier in reference.get("identifiers", ()):
        assert reference["url"] == f"https://arxiv.org/abs/{identifier['value'][6:]}"


def test_what_code_and_method_pages_name_is_cited() -> None:
    cited = _ids((ROOT / "CITATION.cff").read_text("utf-8"))
    methods = "\n".join(path.read_text("utf-8") for path in ROOT.glob("docs/**/methods/*.md"))
    code = "\n".join(path.read_text("utf-8") for path in ROOT.glob("wsss/**/*.py"))
    assert _ids(methods + code) <= cited
