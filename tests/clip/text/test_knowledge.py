"""The knowledge base, and what people and models write."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from wsss.cli.app import app
from wsss.clip.text.knowledge import (
    BUILT_IN,
    KnowledgeError,
    add,
    descriptions,
    parse,
    prompt,
    read,
    without_prompt,
)
from wsss.data.datasets.classes import class_list, folder_classes


@pytest.mark.parametrize("name", ["voc", "coco", "demo"])
def test_built_in_knowledge(name: str) -> None:
    classes = class_list(name)
    actual = descriptions(classes)
    assert list(actual) == list(classes.names)
    for class_name, sentences in actual.items():
        assert len(sentences) == len(set(sentences)) == 20
        for sentence in sentences:
            assert sentence == sentence.lower()
            assert sentence.endswith(".")
            words = sentence.rstrip(".").split()
            assert 3 <= len(words) <= 30
            assert class_name not in sentence.replace(".", "").split()


def test_built_in_sentences_differ() -> None:
    for file in sorted(BUILT_IN.glob("*.json")):
        every = [sentence for sentences in read(file).values() for sentence in sentences]
        assert len(every) == len(set(every))


def test_custom_classes_need_descriptions(tmp_path: Path) -> None:
    classes = folder_classes(["Dog", "crab"])
    with pytest.raises(KnowledgeError, match=r"no description of crab: .*wsss knowledge add"):
        descriptions(classes)
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"Crab": ["it has two claws."], "dog": ["it has floppy ears."]}))
    actual = descriptions(classes, file)
    assert actual == {"Dog": ["it has floppy ears."], "crab": ["it has two claws."]}


def test_a_file_may_use_another_name_of_a_class(tmp_path: Path) -> None:
    """As the released file for COCO does: it says sofa where COCO says couch."""
    file = tmp_path / "released.json"
    file.write_text(json.dumps({"sofa": ["it has a back."], "airplane": ["it has wings."]}))
    coco, voc = (descriptions(class_list(name), file) for name in ("coco", "voc"))
    assert coco["couch"] == voc["sofa"] == ["it has a back."]
    assert coco["airplane"] == voc["aeroplane"] == ["it has wings."]
    assert coco["dog"] == descriptions(class_list("coco"))["dog"]


@pytest.mark.parametrize(
    ("sentence", "template", "bare"),
    [
        ("A clean origami hot dog. it is long.", "a clean origami {}.", "it is long."),
        ("it is no clean origami dog. it lives.", "a clean origami {}.", None),
        ("a clean origami dog.", "a clean origami {}.", None),
        ("a photo of a dog it has", "a photo of a {}", None),
    ],
)
def test_prompt_of_a_sentence(sentence: str, template: str, bare: str | None) -> None:
    assert without_prompt(sentence, template) == (bare or sentence)


ANSWERS = {
    "colons and numbers": "Here they are:\n\nSea crab:\n1. it has two claws.\n2) it is red.\n",
    "markdown": "# Sea crab\n\n- it has two claws.\n* it is red.\n\n## Eel\n- it is long.\n",
    "bold and quotes": '**Sea crab**\n"it has two claws.",\n"it is red.",\n',
    "bold colon": "**Sea crab:**\n- it has two claws.\n- it is red.\n",
    "numbered headings": "1. Sea crab:\n   - it has two claws.\n   - it is red.\n",
    "JSON": '{"Sea crab": ["it has two claws.", "it is red."]}',
    "fenced": "```\nSea crab:\nit has two claws.\nit is red.\n```\n",
}


@pytest.mark.parametrize("style", ANSWERS)
def test_answers_of_models_are_read(style: str) -> None:
    actual = parse(ANSWERS[style], "answer.txt")
    assert actual["Sea crab"] == ["it has two claws.", "it is red."]


def test_named_classes_need_no_mark() -> None:
    actual = parse(
        "crab\nit has two claws.\neel\nit is long.\n", "a.txt", class_names=["crab", "eel"]
    )
    assert actual == {"crab": ["it has two claws."], "eel": ["it is long."]}
    assert parse("it has two claws.\n", "a.txt", class_names=["crab"]) == {
        "crab": ["it has two claws."]
    }


def test_text_before_the_first_class_is_named(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "a.txt").write_text("Crab\n- it has two claws.\n\neel:\n- it is long.\n")
    knowledge = tmp_path / "own.json"
    CliRunner().invoke(app, ["knowledge", "add", str(tmp_path / "a.txt"), "--to", str(knowledge)])
    assert "2 lines before the first class left out, e.g. 'Crab'" in caplog.text
    assert read(knowledge) == {"eel": ["it is long."]}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("it has two claws.", "found no description"),
        ("{nothing", "begins like JSON"),
        ('{"crab": "it has claws."}', "expected a list"),
        ('{"crab": ["{} has claws."]}', "is no sentence"),
        ("crab:\n" + "long " * 100, "of 300 letters"),
    ],
)
def test_unusable_answers_are_named(text: str, message: str) -> None:
    with pytest.raises(KnowledgeError, match=message) as error:
        parse(text, "answer.txt")
    assert "answer.txt" in str(error.value)


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        actual = parse(text, "text")
    except KnowledgeError:
        return
    assert all(sentences for sentences in actual.values())


def test_adding_repeats_nothing(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    add({"crab": ["it has two claws."]}, file)
    stored = add({"crab": ["it has two claws.", "it is red."], "eel": ["it is long."]}, file)
    assert stored == read(file)
    assert stored == {"crab": ["it has two claws.", "it is red."], "eel": ["it is long."]}


def test_commands(tmp_path: Path) -> None:
    runner = CliRunner()
    prompted = runner.invoke(app, ["knowledge", "prompt", "crab", "--count", "7"])
    assert prompted.exit_code == 0
    assert "write 7 short" in prompted.stdout
    assert prompted.stdout == prompt(["crab"], 7)
    answer, file = tmp_path / "answer.txt", tmp_path / "own.json"
    answer.write_text("crab:\n- it has two claws.\n")
    added = runner.invoke(app, ["knowledge", "add", str(answer), "--to", str(file)])
    assert added.exit_code == 0, added.output
    assert read(file) == {"crab": ["it has two claws."]}
    shown = runner.invoke(app, ["knowledge", "show", "crab", "zebra", "--knowledge", str(file)])
    assert "it has two claws." in shown.stdout
    assert "zebra:" in shown.stdout
    piped = runner.invoke(
        app, ["knowledge", "add", "-", "--to", str(file), "--class", "eel"], input="it is long.\n"
    )
    assert piped.exit_code == 0, piped.output
    assert "eel" in read(file)
