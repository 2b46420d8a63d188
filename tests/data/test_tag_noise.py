"""Tags removed and added at random."""

import itertools

import pytest

from wsss.config.data import TagNoiseConfig
from wsss.data.tag_noise import noisy_tags

NAMES = tuple(f"class {k}" for k in range(6))
SHARES = (0.0, 0.05, 0.1, 0.3, 0.5, 0.8, 1.0)
TAGS = {f"image{n}": tuple(k for k in range(6) if (n >> k) & 1) for n in range(1, 63)}


def _noisy(image: str, **noise: object) -> tuple[int, ...]:
    tags = TAGS[image]
    return noisy_tags(image, tags, tags, NAMES, TagNoiseConfig.model_validate(noise))


@pytest.mark.parametrize("untagged", ["keep_one", "leave_out"])
@pytest.mark.parametrize("seed", [0, 7])
def test_what_a_share_removes_a_larger_one_removes_too(untagged: str, seed: int) -> None:
    for image, tags in TAGS.items():
        left = [set(_noisy(image, dropped=share, untagged=untagged, seed=seed)) for share in SHARES]
        assert left[0] == set(tags)
        assert all(more >= fewer for more, fewer in itertools.pairwise(left))
        assert len(left[-1]) == (1 if untagged == "keep_one" else 0)
    by_share = [
        sum(len(_noisy(image, dropped=share, seed=seed)) for image in TAGS) for share in SHARES
    ]
    assert by_share == sorted(by_share, reverse=True)
    assert len(set(by_share)) == len(SHARES)


@pytest.mark.parametrize("dropped", [0.0, 0.5, 1.0])
def test_what_a_share_adds_a_larger_one_adds_too(dropped: float) -> None:
    wrong = [
        {i: set(_noisy(i, added=share, dropped=dropped)) - set(tags) for i, tags in TAGS.items()}
        for share in SHARES
    ]
    assert not any(wrong[0].values())
    assert all(len(classes) == 1 for classes in wrong[-1].values())
    for fewer, more in itertools.pairwise(wrong):
        assert all(fewer[image] <= more[image] for image in TAGS)
    assert len({min(classes) for classes in wrong[-1].values()}) == len(NAMES)


def test_an_image_with_every_class_gets_no_wrong_one() -> None:
    every = tuple(range(6))
    assert noisy_tags("a", every, every, NAMES, TagNoiseConfig(added=1.0)) == every


def test_what_clip_saw_and_what_is_given_are_both_not_added() -> None:
    noise = TagNoiseConfig(source="clip", added=1.0)
    for image in TAGS:
        assert noisy_tags(image, (0, 1), (1, 2, 3, 4), NAMES, noise) == (0, 1, 5)


def test_shares_are_those_of_many_images() -> None:
    noise = TagNoiseConfig(dropped=0.3, added=0.2, untagged="leave_out")
    tags = [noisy_tags(f"photo {n}", (0, 1), (0, 1), NAMES, noise) for n in range(4000)]
    remaining_share = sum(len({0, 1} & set(of_image)) for of_image in tags) / 8000
    wrong = sum(bool(set(of_image) - {0, 1}) for of_image in tags) / 4000
    assert remaining_share == pytest.approx(0.7, abs=0.02)
    assert wrong == pytest.approx(0.2, abs=0.025)
    both = sum({0, 1} <= set(of_image) for of_image in tags) / 4000
    assert both == pytest.approx(0.49, abs=0.03)  # each tag by itself


def test_class_names_decide_and_not_their_order() -> None:
    noise = TagNoiseConfig(dropped=0.5, added=0.5)
    turned = tuple(reversed(NAMES))
    for image, tags in TAGS.items():
        mirrored = [5 - k for k in tags]
        there = noisy_tags(image, mirrored, mirrored, turned, noise)
        assert [5 - k for k in there] == list(noisy_tags(image, tags, tags, NAMES, noise))


def test_seeds_and_images_differ() -> None:
    by_seed = {
        tuple(noisy_tags(f"p{n}", (0, 1), (0, 1), NAMES, TagNoiseConfig(dropped=0.5, seed=seed)))
        for n in range(1)
        for seed in range(20)
    }
    assert len(by_seed) > 1
    noise = TagNoiseConfig(dropped=0.5)
    assert len({noisy_tags(f"p{n}", (0, 1), (0, 1), NAMES, noise) for n in range(20)}) > 1


def test_what_plays_no_part_is_no_part_of_a_key() -> None:
    assert TagNoiseConfig(seed=3, threshold=0.7).effective() == {}
    assert TagNoiseConfig(dropped=0.5, splits=[]).effective() == {}
    clip = TagNoiseConfig(source="clip", seed=3).effective()
    assert "seed" not in clip
    assert clip["threshold"] == 0.1
    assert TagNoiseConfig(added=0.1, seed=3).effective()["seed"] == 3
