"""What the CLIP is taught from: the stream of scenes, its crops, and the teacher's cells."""

from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from tools.demo_clip.schedule import rate_share
from tools.demo_clip.stream import SIDE, WORDS, Crops, Order, Stream, draw_stream, recolour
from tools.demo_clip.teacher import Teacher, TeacherRecipe, patch_targets, pool, train_teacher
from wsss.demo.scenes import render_scene


@pytest.fixture(scope="module")
def stream() -> Stream:
    return draw_stream(3, 64)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_stream_is_that_of_the_scenes(stream: Stream) -> None:
    scene = render_scene(3, "pretrain", 40)
    assert stream.images.shape == (64, 3, SIDE, SIDE)
    assert stream.tags[40] == scene.tags
    said = {WORDS[k] for k in stream.truth()[40].nonzero().flatten().tolist()}
    assert said == {*scene.tags, *scene.surroundings}


def test_order_shows_every_scene_once_before_it_repeats_one() -> None:
    order = Order(10, torch.Generator().manual_seed(0))
    taken = torch.cat([order.take(4) for _ in range(5)])
    assert sorted(taken[:10].tolist()) == sorted(taken[10:].tolist()) == list(range(10))


def test_crops_move_images_and_maps_alike() -> None:
    generator = torch.Generator().manual_seed(1)
    ramp = torch.linspace(0, 1, 112).expand(6, 2, 112, 112).clone()
    ramp[:, 1] = ramp[:, 1].transpose(1, 2)
    crops = Crops.draw(6, generator)
    fine = crops.of(ramp, (96, 96))
    coarse = crops.of(torch.nn.functional.avg_pool2d(ramp, 8), (12, 12))
    inner = (slice(None), slice(None), slice(1, -1), slice(1, -1))
    expected = torch.nn.functional.avg_pool2d(fine, 8)
    torch.testing.assert_close(coarse[inner], expected[inner], atol=0.02, rtol=0)
    rising = fine[:, 0].diff(dim=2).mean((1, 2)) > 0
    assert rising.any()
    assert not rising.all()  # some are mirrored


def test_colours_stay_in_range() -> None:
    pixels = torch.rand(4, 3, 8, 8) * 255
    changed = recolour(pixels, torch.Generator().manual_seed(0))
    assert 0 <= changed.min() < changed.max() <= 255
    assert not torch.equal(changed, pixels)


def test_pooling_lies_between_mean_and_maximum() -> None:
    logits = torch.randn(2, 5, 4, 6)
    cells = logits.flatten(2)
    assert (pool(logits) > cells.mean(2)).all()
    assert (pool(logits) < cells.amax(2)).all()
    torch.testing.assert_close(pool(torch.full((1, 1, 3, 3), 2.0)), torch.tensor([[2.0]]))


def test_teacher_learns_tags_and_names_only_what_is_there(stream: Stream) -> None:
    losses: list[float] = []

    def progress(phase: str, done: int, total: int, loss: float) -> None:
        losses.append(loss)

    torch.manual_seed(0)
    teacher = train_teacher(stream, TeacherRecipe(steps=30, batch=16), 0, progress)
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])
    targets = patch_targets(teacher, stream).float()
    assert targets.shape == (64, len(WORDS), SIDE // 8, SIDE // 8)
    torch.testing.assert_close(targets.sum(1), torch.ones(64, 14, 14), atol=2e-3, rtol=0)
    assert targets[stream.truth() == 0].max() == 0


def test_teacher_takes_any_grid() -> None:
    logits: Tensor = Teacher(4)(torch.rand(1, 3, 64, 96))
    assert logits.shape == (1, 4, 8, 12)


def test_rate_rises_then_falls() -> None:
    shares = [rate_share(k / 100, 0.1) for k in range(100)]
    assert shares[0] < 0.02
    assert max(shares) == pytest.approx(1.0, abs=0.01)
    assert shares.index(max(shares)) in (9, 10)
    assert shares[10:] == sorted(shares[10:], reverse=True)
    assert 0.01 <= shares[-1] < 0.02
