"""Training samples are a function of (seed, position) and of nothing else."""

import gc
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.registry import DefaultScope
from torch.utils.data import DataLoader

from wsss.artifacts.digest import digest_file
from wsss.artifacts.errors import ArtifactError
from wsss.retrain import dataset as module
from wsss.retrain.dataset import PseudoMaskDataset, StreamSampler
from wsss.retrain.recipe import _augmentation
from wsss.retrain.train import label_names

Make = Any


def make(
    data: Any, masks: list[Path], config: Any, *, seed: int = 0, quiet: bool = False, **more: Any
) -> PseudoMaskDataset:
    pipeline = _augmentation(config.retrain)
    if quiet:
        pipeline = [step for step in pipeline if step["type"] != "PhotoMetricDistortion"]
    with DefaultScope.overwrite_default_scope("mmseg"):  # as the runner does
        return PseudoMaskDataset(
            manifest_dir=str(data.manifest_dir),
            masks=[str(path) for path in masks],
            seed=seed,
            max_pixels=10**6,
            metainfo={"classes": label_names(data.classes)},
            pipeline=pipeline,
            **more,
        )


def pixels(sample: dict[str, Any]) -> bytes:
    mask = sample["data_samples"].gt_sem_seg.data
    return sample["inputs"].numpy().tobytes() + mask.numpy().tobytes()


@pytest.mark.slow
def test_a_sample_depends_on_seed_and_position_alone(data: Any, configure: Make) -> None:
    config, masks = configure(), data.masks()
    first = make(data, masks, config)
    stream = [pixels(first[position]) for position in range(20)]
    np.random.seed(7)
    before = np.random.get_state()[1].tolist()
    again = make(data, data.masks(parts=3), config, cache_bytes=0)  # other shards, read from disk
    assert [pixels(again[position]) for position in reversed(range(20))] == stream[::-1]
    assert np.random.get_state()[1].tolist() == before
    assert len(set(stream)) > 15
    assert pixels(make(data, masks, config, seed=1)[0]) != stream[0]


def test_packing_the_records_asks_for_no_look_at_all_objects(data: Any, configure: Make) -> None:
    config, masks = configure(), data.masks()
    generations: list[int] = []

    def note(phase: str, info: dict[str, int]) -> None:
        generations.append(info["generation"])

    gc.disable()  # only what is asked for
    gc.callbacks.append(note)
    try:
        dataset = make(data, masks, config)
    finally:
        gc.callbacks.remove(note)
        gc.enable()
    assert len(dataset.data_bytes)  # packed
    assert not generations
    assert module.base_dataset.gc is gc


def test_workers_give_the_same_stream(data: Any, configure: Make) -> None:
    dataset = make(data, data.masks(), configure(), cache_bytes=0)
    expected = [pixels(dataset[position]) for position in range(12)]
    sampler = StreamSampler(dataset)
    loader = DataLoader(dataset, batch_size=3, sampler=sampler, num_workers=2, collate_fn=list)
    batches = iter(loader)
    assert [pixels(s) for _ in range(4) for s in next(batches)] == expected


def test_every_epoch_is_a_new_order_of_all_images(data: Any, configure: Make) -> None:
    dataset = make(data, data.masks(), configure())
    epochs = [[dataset.index(6 * epoch + position) for position in range(6)] for epoch in range(8)]
    assert all(sorted(epoch) == list(range(6)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) > 4


@pytest.mark.parametrize("devices", [1, 2, 4])
def test_devices_share_global_batches(devices: int, monkeypatch: pytest.MonkeyPatch) -> None:
    share = 8 // devices
    batches = []
    for rank in range(devices):
        monkeypatch.setattr(module, "get_dist_info", lambda rank=rank: (rank, devices))
        sampler = StreamSampler([])
        sampler.skip(3 * share)  # resumed after three steps
        positions = iter(sampler)
        batches.append([[next(positions) for _ in range(share)] for _ in range(2)])
    for step in range(2):
        together = sorted(p for rank in range(devices) for p in batches[rank][step])
        assert together == list(range(8 * (3 + step), 8 * (4 + step)))


def test_photo_and_target_move_together(data: Any, configure: Make) -> None:
    dataset = make(data, data.masks(), configure(crop=40, scale_range=[0.3, 2.0]), quiet=True)
    shapes, agreement = set(), []
    for position in range(30):
        sample = dataset[position]
        photo, mask = sample["inputs"].numpy(), sample["data_samples"].gt_sem_seg.data[0].numpy()
        assert photo.shape == (3, *mask.shape)
        assert max(mask.shape) <= 40
        shapes.add(mask.shape)
        agreement.append((np.abs(photo[0].astype(int) - data.grey[mask]) < 30).mean())
    assert len(shapes) > 3  # scaled below the crop, too
    assert np.mean(agreement) > 0.95


def test_colours_reach_mmsegmentation_as_bgr(data: Any, configure: Make) -> None:
    from PIL import Image

    sample = data.samples[0]
    Image.new("RGB", (sample.width, sample.height), (200, 100, 0)).save(sample.path)
    data.samples[0] = replace(sample, digest=digest_file(sample.path))
    data.save()
    dataset = make(data, data.masks(), configure(), quiet=True)
    position = next(p for p in range(6) if dataset.index(p) == 0)
    assert dataset[position]["inputs"][:, 5, 5].tolist() == [0, 100, 200]


def test_padding_is_ignored(data: Any, configure: Make) -> None:
    from wsss.retrain.architecture import build_model, model_config

    dataset = make(data, data.masks(), configure(scale_range=[0.5, 0.5]), quiet=True)
    preprocessor = build_model(model_config("segformer-b0", labels=4, crop=48)).data_preprocessor
    samples = [dataset[position] for position in range(2)]
    sizes = [tuple(sample["inputs"].shape[1:]) for sample in samples]
    batch = {key: [sample[key] for sample in samples] for key in ("inputs", "data_samples")}
    ready = preprocessor(batch, training=True)
    assert ready["inputs"].shape == (2, 3, 48, 48)
    for index, (height, width) in enumerate(sizes):
        mask = ready["data_samples"][index].gt_sem_seg.data[0]
        outside = torch.ones_like(mask, dtype=torch.bool)
        outside[:height, :width] = False
        assert (mask[outside] == 255).all()
        assert (mask[~outside] != 255).all()


def test_wrong_inputs_are_named(data: Any, configure: Make, tmp_path: Path) -> None:
    config = configure()
    with pytest.raises(ArtifactError, match=r"holds 'cams', expected 'masks'"):
        make(data, data.masks(kind="cams"), config)
    with pytest.raises(ArtifactError, match=r"3 of 6 training images have no .*, e\.g\. 'b c'"):
        make(data, data.masks()[:1], config)
    with pytest.raises(ArtifactError, match=r"of 'a' is \(64, 79\), its image .* is \(64, 80\)"):
        make(data, data.masks(change=lambda mask: mask[:, 1:]), config)
    with pytest.raises(ArtifactError, match=r"has label 4, but the class list ends at 3"):
        make(data, data.masks(change=lambda mask: np.full_like(mask, 4)), config)
