"""Names as people and tools write them: read, or refused; never other names."""

import json
import time

import numpy as np
import pytest

from wsss.data.datasets.classes import folder_classes, is_background, spelling
from wsss.data.datasets.free_text import plain_text, split_names
from wsss.data.datasets.tags import TagReader
from wsss.data.errors import DataError

PAIR = ["cat", "teddy bear"]


@pytest.mark.parametrize(
    "cell",
    [
        str(PAIR),
        str(tuple(PAIR)),
        "{'cat', 'teddy bear'}",
        json.dumps(PAIR),
        json.dumps(str(PAIR)),
        json.dumps(json.dumps(PAIR)),
        str(np.array(PAIR)),
        str(list(np.array(PAIR))),
        "['cat'\n 'teddy bear']",
        "[cat, teddy bear]",
        "{cat,\"teddy bear\"}",
        "'cat', 'teddy bear'",
        "[b'cat', u'teddy bear']",
        "\u201ccat\u201d, \u201cteddy bear\u201d",
        "[\u2018cat\u2019, \u2018teddy bear\u2019]",
        "\uff3b'cat'\uff0c'teddy bear'\uff3d",
        "['cat';'teddy bear']",  # cells that a comma parted, put together again
        '["cat";teddy bear]',
        "cat;teddy bear;nan;None;<NA>",
        "cat\uff0cteddy bear",
        "cat\u3001teddy\u3000bear",
        "cat\uff1bteddy\xa0bear",
        "cat\uff5cteddy bear",
        "\u300ccat\u300d\u3001\u300cteddy bear\u300d",
        "cat\u060c teddy bear",
        "cat\tteddy bear",
        "cat\u2028teddy bear",
        "\ufeffc\u200bat\u200d; ted\xaddy\u2060 bear\u200e",
        "\uff43\uff41\uff54; teddy bear",
    ],
)  # fmt: skip
def test_names_are_read(cell: str) -> None:
    assert list(split_names(cell)) == PAIR
    assert TagReader(folder_classes(PAIR)).cell(cell).indices == (0, 1)


@pytest.mark.parametrize("cell", ["", "[]", "()", "{}", "['']", "set()", "\u200b", " ; ", "nan"])
def test_no_names(cell: str) -> None:
    assert split_names(cell) == ()


@pytest.mark.parametrize(
    ("cell", "names"),
    [
        ("crane (bird); (red) car", ["crane (bird)", "(red) car"]),
        ("dog's bowl, 19\" screen", ["dog's bowl", '19" screen']),
        ("cat/dog", ["cat/dog"]),
        (json.dumps(["\u732b\U0001f431"]), ["\u732b\U0001f431"]),
        (r"['dog\'s bowl']", ["dog's bowl"]),
        ("\u0645\u06cc\u200c\u062e\u0648\u0627\u0647\u0645",) * 2,  # the joiner shapes the word
    ],
)
def test_other_names_survive(cell: str, names: list[str] | str) -> None:
    assert list(split_names(cell)) == ([names] if isinstance(names, str) else names)


@pytest.mark.parametrize(
    "cell",
    [
        "['cat'", "cat']", "'cat", "['cat', None]", "{'cat': 1}", '{"choices": ["cat"]}',
        "[['cat'], ['dog']]", "array(['cat'], dtype=object)", "[dog's, cat's]", r"['a\d']",
        "['a' ... 'b']", "['cat'}", "[", "{", "cat [blurred]",
    ],
)  # fmt: skip
def test_what_is_no_list_is_refused(cell: str) -> None:
    tags = TagReader(folder_classes(PAIR)).cell(cell)
    assert tags.indices == ()
    assert str(tags.problem).startswith("tags that are no list of names: ")


@pytest.mark.parametrize("piece", [" ", "'", "[", "a.", "\\", "\u200b", "'a' ", "("])
def test_the_time_grows_with_the_length(piece: str) -> None:
    """The largest cell of a CSV; what grows with its square takes minutes."""
    start = time.perf_counter()
    for form in ("[a{}'", "['{}", "{}[", "[{}x:"):
        with pytest.raises(DataError):
            split_names(form.format(piece * (131_000 // len(piece))))
    assert time.perf_counter() - start < 5


def test_what_looks_alike_is_one_class() -> None:
    spellings = [
        "hot dog",
        "Hot_Dog",
        "\uff28\uff4f\uff54\u3000dog",
        "hot\u200b dog\u200c",
        "hot  dog",
    ]
    assert len({spelling(text) for text in spellings}) == 1
    assert spelling("t\u2011shirt\u2019s") == spelling("T-shirt's")
    assert plain_text("e\u200b\u0301") == "\xe9"
    assert folder_classes(["\uff43at\u200b", "dog"]).names == ("cat", "dog")
    for twin in spellings[1:]:
        with pytest.raises(DataError, match="is the same as 'hot dog'"):
            folder_classes([spellings[0], twin])


@pytest.mark.parametrize(
    "name",
    ["background", "Background", "__background__", "_background_", "BG", "back-ground",
     "\uff22\uff27", "back\u200bground"],
)  # fmt: skip
def test_the_background_is_no_class(name: str) -> None:
    assert is_background(name)
    with pytest.raises(DataError, match="label 0 is the background"):
        folder_classes(["cat", name])
    problem = TagReader(folder_classes(["cat"])).cell(f"cat;{name}").problem
    assert "unknown tag" in str(problem)
    assert "label 0 is the background" in str(problem)
    assert not is_background("background dancer")


@pytest.mark.parametrize("name", ["None", "nan"])
def test_the_word_for_a_missing_tag_is_no_class(name: str) -> None:
    """Its photos would lose the tag without a word."""
    with pytest.raises(DataError, match="a tag is missing"):
        folder_classes(["cat", name])
