"""Grad-CAM against a straightforward autograd loop, one image and one class at a time."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tests.clip.models import tiny_clip
from wsss.cams.grad_cam import Gradient, grad_cam
from wsss.cams.maps import scale_maps
from wsss.clip.encoder import ClipEncoder
from wsss.clip.text.embeddings import TextBank


def _bank(seed: int = 1, classes: int = 6, backgrounds: int = 4) -> TextBank:
    generator = torch.Generator().manual_seed(seed)
    features = F.normalize(torch.randn(classes + backgrounds, 24, generator=generator), dim=-1)
    return TextBank(features[:classes], features[classes:])


def reference(
    model: Any, image: torch.Tensor, classes: list[int], bank: TextBank, gradient: Gradient
) -> torch.Tensor:
    """Raw maps by autograd through open_clip's own last block (docs/methods/clip-es.md)."""
    visual = model.visual
    encoder = ClipEncoder(visual, logit_scale=float(model.logit_scale.exp()))
    tokens = encoder.run(image[None], until=encoder.depth - 1).tokens
    block = visual.transformer.resblocks[-1]
    maps = []
    for k, _ in enumerate(classes):
        normed = block.ln_1(tokens).detach().requires_grad_()
        mixed, _weights = block.attn(normed, normed, normed, need_weights=False)
        after = tokens + mixed
        after = after + block.mlp(block.ln_2(after))
        feature = F.normalize(visual.ln_post(after)[:, 1:].mean(1) @ visual.proj, dim=-1)
        texts = torch.cat([bank.classes[classes], bank.backgrounds])
        logits = (encoder.logit_scale * feature @ texts.T)[0]
        if gradient == "softmax":
            score = logits.softmax(-1)[k]
        else:
            others = torch.cat([logits[:k], logits[k + 1 :]])
            score = logits[k] - (others.logsumexp(0) if len(others) else 0.0)
        (slope,) = torch.autograd.grad(score, normed)
        weights = slope[0, 1:].mean(0)
        maps.append(normed[0, 1:].detach() @ weights)
    grid = (image.shape[1] // encoder.patch[0], image.shape[2] // encoder.patch[1])
    return torch.stack(maps).unflatten(1, grid)


@pytest.mark.parametrize("gradient", ["softmax", "margin"])
@pytest.mark.parametrize(("patch", "size"), [(16, (64, 96)), (8, (40, 24)), (14, (70, 56))])
def test_batch_equals_the_loop(gradient: Gradient, patch: int, size: tuple[int, int]) -> None:
    model = tiny_clip(patch=patch, side=4 * patch)
    model.logit_scale.fill_(2.0)  # at 100 the published gradient underflows on random features
    bank = _bank()
    images = torch.randn(4, 3, *size)
    classes = [[2], [0, 5, 3], [], [1, 4]]
    encoder = ClipEncoder(model.visual, logit_scale=float(model.logit_scale.exp()))
    actual = grad_cam(encoder, images, classes, bank, gradient=gradient)
    assert actual.image_index.tolist() == [0, 1, 1, 1, 3, 3]
    expected = torch.cat(
        [
            reference(model, images[i], labels, bank, gradient)
            for i, labels in enumerate(classes)
            if labels
        ]
    )
    scale = expected.flatten(1).abs().amax(1)[:, None, None]
    torch.testing.assert_close(actual.maps / scale, expected / scale, rtol=1e-3, atol=1e-3)


def test_margin_and_softmax_give_the_same_map_where_nothing_saturates() -> None:
    model = tiny_clip()
    encoder = ClipEncoder(model.visual, logit_scale=3.0)
    arguments = (encoder, torch.randn(2, 3, 64, 64), [[0, 1], [3]], _bank())
    margin = scale_maps(grad_cam(*arguments, gradient="margin").maps.relu())
    softmax = scale_maps(grad_cam(*arguments, gradient="softmax").maps.relu())
    torch.testing.assert_close(margin, softmax, rtol=1e-3, atol=1e-3)


def test_margin_survives_where_the_softmax_saturates() -> None:
    """With one logit far above the others p (1 - p) underflows; the margin does not change."""
    model = tiny_clip()
    arguments = (torch.randn(1, 3, 64, 64), [[0]], _bank(backgrounds=1))
    calm = ClipEncoder(model.visual, logit_scale=1.0)
    sure = ClipEncoder(model.visual, logit_scale=1e4)
    expected = grad_cam(calm, *arguments, gradient="margin").maps
    actual = grad_cam(sure, *arguments, gradient="margin").maps
    torch.testing.assert_close(actual / 1e4, expected, rtol=1e-4, atol=1e-6)
    dead = grad_cam(sure, *arguments, gradient="softmax").maps
    assert dead.abs().max() < 1e-10 * actual.abs().max()


def test_single_prompt_falls_back_to_the_logit() -> None:
    model = tiny_clip()
    encoder = ClipEncoder(model.visual, logit_scale=100.0)
    bank = _bank(backgrounds=0)
    image = torch.randn(1, 3, 64, 64)
    actual = grad_cam(encoder, image, [[2]], bank, gradient="margin")
    assert actual.maps.abs().max() > 0
    assert grad_cam(encoder, image, [[2]], bank, gradient="softmax").maps.abs().max() == 0


def test_images_without_tags_have_no_maps() -> None:
    encoder = ClipEncoder(tiny_clip().visual)
    actual = grad_cam(encoder, torch.randn(2, 3, 64, 64), [[], []], _bank(), attention_blocks=2)
    assert actual.maps.shape == (0, 4, 4)
    torch.testing.assert_close(actual.attention.sum(-1), torch.ones(2, 17))


@pytest.mark.parametrize("classes", [[[0, 0]], [[0], [1]]])
def test_lists_that_do_not_fit_are_refused(classes: list[list[int]]) -> None:
    with pytest.raises(ValueError, match="without repeats"):
        grad_cam(ClipEncoder(tiny_clip().visual), torch.randn(1, 3, 64, 64), classes, _bank())
