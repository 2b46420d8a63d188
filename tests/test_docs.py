"""Links between the pages, and the files that they name, exist."""

import re
from pathlib import Path

import pytest

_ROOT = Path(__file__).parents[1]
_PAGES = sorted(
    page.relative_to(_ROOT).as_posix()
    for pattern in ("*.md", "docs/*.md", "docs/*/*.md")
    for page in _ROOT.glob(pattern)
)
_FILE = re.compile(
    r"`((?:wsss|tests|benchmarks|tools|docs|workflow|envs)/[\w./-]*\.(?:py|md|yaml|json|smk|def))`"
)


@pytest.mark.parametrize("name", _PAGES)
def test_links_and_files(name: str) -> None:
    page = (_ROOT / name).read_text("utf-8")
    for file, fragment in re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", page):
        target = (_ROOT / name).parent / file if file else _ROOT / name
        assert target.exists(), file
        if fragment:
            assert fragment in _anchors(target.read_text("utf-8")), f"{file}#{fragment}"
    if name == "CHANGELOG.md":
        return  # names files as they were
    for file in _FILE.findall(page):
        if "<" not in file and "toy" not in file:
            assert (_ROOT / file).exists(), file


def _anchors(page: str) -> set[str]:
    """Anchors of the headings, as GitHub makes them, and those that are written out."""
    headings = re.findall(r"^#+ (.*)$", page, re.MULTILINE)
    slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
    return slugs | set(re.findall(r'<a id="([^"]+)">', page))


def test_the_page_of_environment_variables_names_all() -> None:
    text = (_ROOT / "docs/reference/environment.md").read_text("utf-8")
    listed = set(re.findall(r"`(WSSS_\w+)`", text))
    sources = [
        path.read_text("utf-8")
        for folder in ("wsss", "workflow", "tests", "benchmarks")
        for path in _ROOT.glob(f"{folder}/**/*")
        if path.suffix in {".py", ".smk", ".yaml"} and path != Path(__file__)
    ]
    assert listed == set(re.findall(r"\bWSSS_[A-Z_]*[A-Z]\b", "\n".join(sources)))


def test_pages_that_the_code_names_exist() -> None:
    for folder in ("wsss", "workflow", "tests", "benchmarks", "envs", "tools"):
        for path in _ROOT.glob(f"{folder}/**/*"):
            if path.suffix in {".py", ".smk", ".yaml", ".json"} and path != Path(__file__):
                for page in re.findall(r"docs/[\w/-]+\.md", path.read_text("utf-8")):
                    assert (_ROOT / page).exists(), f"{path} names {page}"
