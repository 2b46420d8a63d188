"""Text semantic enrichment: sentences to attributes to class texts (docs/methods/excel.md)."""

from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from wsss.clip.load import LoadedClip, load_clip
from wsss.clip.text.attributes import attribute_bank, attribute_weights, enrich, enriched_bank
from wsss.clip.text.embeddings import text_bank
from wsss.config.base import fill_variant
from wsss.config.cams import TseConfig
from wsss.config.model import DEMO
from wsss.config.paths import expand_path
from wsss.data.datasets.classes import class_list


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> LoadedClip:
    paths = (str(expand_path(p)) for p in (DEMO["clip"]["model"], DEMO["clip"]["pretrained"]))
    return load_clip(*paths, cache_dir=tmp_path_factory.mktemp("clip"))


def _tse(variant: str = "corrected", **values: object) -> TseConfig:
    filled = fill_variant(TseConfig, {"form": "topk"} | values, variant)
    return TseConfig.model_validate(filled)


SENTENCES = {
    "cat": ["it has pointed ears.", "it has four legs.", "it has a long tail."],
    "horse": ["it has a flowing mane.", "it has four legs and hooves.", "it has a long neck."],
    "car": ["it has round black wheels.", "it has glass windows.", "it has a metal body."],
}


def test_a_prefix_keeps_attributes_apart(clip: LoadedClip) -> None:
    template = "a clean origami {}."
    apart = attribute_bank(clip, SENTENCES, template, _tse(prefix="class", clusters=5))
    assert (apart.class_mask.sum(0) >= 1).all()
    shared = attribute_bank(clip, SENTENCES, template, _tse(prefix="none", clusters=5))
    # Legs are what cat and horse share; without the prefix they are one attribute.
    assert (shared.class_mask.sum(0) > 1).any()
    assert shared.class_mask.sum(0).sum() >= apart.class_mask.sum(0).sum() - 5


@pytest.mark.parametrize("prefix", ["class", "none"])
def test_a_released_sentence_has_one_prompt_its_own(clip: LoadedClip, prefix: str) -> None:
    """Also where the file says sofa of a class that the list calls couch."""
    template = "a clean origami {}."
    released = {
        f"the {name} of a list": [f"{template.replace('{}', name)} {line}" for line in lines]
        for name, lines in SENTENCES.items()
    }
    bare, given = (
        attribute_bank(clip, sentences, template, _tse(prefix=prefix, clusters=5)).centres
        for sentences in (SENTENCES, released)
    )
    assert torch.equal(given, bare)


def test_bank_is_the_same_again_and_from_the_cache(clip: LoadedClip, tmp_path: Path) -> None:
    template = "a {}."
    first = attribute_bank(clip, SENTENCES, template, _tse(clusters=4), tmp_path)
    again = attribute_bank(clip, SENTENCES, template, _tse(clusters=4), tmp_path)
    assert torch.equal(first.centres, again.centres)
    assert first.centres.shape[0] == 4
    assert len(attribute_bank(clip, SENTENCES, template, _tse(clusters=99)).centres) == 9
    # 0.28 a sentence, as 112 of 400
    assert len(attribute_bank(clip, SENTENCES, template, _tse()).centres) == 3


@pytest.mark.parametrize(("count", "dropped"), [(112, 11), (224, 22)])
def test_published_top_share_drops_the_lowest_tenth(count: int, dropped: int) -> None:
    texts, bank = F.normalize(torch.randn(4, 16), dim=-1), torch.randn(count, 16)
    weights = attribute_weights(texts, bank, _tse("published"))
    assert ((weights == 0).sum(1) == dropped).all()
    torch.testing.assert_close(weights.sum(1), torch.ones(4))


def test_published_enrichment_is_nearly_a_constant_shift() -> None:
    """Attributes of the released banks are much alike (eq. 4 of docs/methods/excel.md)."""
    torch.manual_seed(0)
    texts = F.normalize(torch.randn(6, 64), dim=-1)
    bank = F.normalize(3 * torch.randn(1, 64) / 8 + torch.randn(112, 64) / 8, dim=-1)
    actual = enrich(texts, bank, _tse("published"))
    shifted = enrich(texts, bank, _tse("published", form="mean"))
    assert F.cosine_similarity(actual, shifted).min() > 0.999
    before = (texts @ texts.T).fill_diagonal_(0).mean()
    assert (actual @ actual.T).fill_diagonal_(0).mean() > before + 0.2
    # The corrected form moves each class in a different direction.
    enriched = enrich(texts, bank, _tse())
    assert F.cosine_similarity(enriched, shifted).max() < 0.9
    assert (enriched @ enriched.T).fill_diagonal_(0).mean() < before + 0.1


def test_at_most_all_but_one_attribute_are_dropped() -> None:
    texts, bank = F.normalize(torch.randn(2, 8), dim=-1), torch.randn(3, 8)
    weights = attribute_weights(texts, bank, _tse(top_share=0.0))
    assert ((weights > 0).sum(1) == 1).all()


def test_backgrounds_stay_as_they_are(clip: LoadedClip) -> None:
    classes = class_list("demo")
    plain = text_bank(clip, classes.prompts, classes.backgrounds, ["a {}."])
    actual = enriched_bank(clip, classes, ["a {}."], _tse())
    assert torch.equal(actual.backgrounds, plain.backgrounds)
    torch.testing.assert_close(actual.classes.norm(dim=-1), torch.ones(len(classes.names)))
    assert not torch.allclose(actual.classes, plain.classes)
    off = enriched_bank(clip, classes, ["a {}."], _tse(form="off"))
    assert torch.equal(off.classes, plain.classes)
