"""A score is refused where its record would attest what was not used."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.builders import clip_es_config, write_shard
from wsss.artifacts.checksum import write_checked_text
from wsss.artifacts.provenance import Provenance
from wsss.artifacts.shard import Item
from wsss.artifacts.stage import STAGES
from wsss.config.model import Config
from wsss.data.manifest_folder import manifest_digests
from wsss.score.metrics.counting import ProductError

from .conftest import Run


def _config(run: Run, **sections: Any) -> Config:
    data = {"root": run.config.data.root}
    return clip_es_config({"data": data, "compute": {"workers": 1}, **sections})


def _made(run: Run, stage: str, config: Config, *sources: Provenance) -> Provenance:
    values = STAGES[stage].select(config)
    inputs = manifest_digests(run.manifest_dir)
    weights = {"clip": "abc"}
    return STAGES[stage].provenance(
        values, inputs=inputs, weights=weights, sources={Path(s.stage): s for s in sources}
    )


def _masks(run: Run, origin: Provenance) -> Path:
    items = [
        Item(s.id, {"label": t, "train": t}, {"classes": list(s.tags)})
        for s in run.samples
        if (t := np.where(run.truth[s.id] == 255, 0, run.truth[s.id]).astype(np.uint8)) is not None
    ]
    return write_shard(run.folder / "1-of-1.h5", "masks", items, origin)


def test_what_was_made_as_configured_is_scored(run: Run, tmp_path: Path) -> None:
    config = _config(run)
    origin = _made(run, "masks", config, _made(run, "cams", config))
    assert [entry.stage for entry in origin.upstream] == ["cams"]
    (record,) = run.score("masks", [_masks(run, origin)], tmp_path / "s.json", config=config)
    assert record.provenance.inputs["truth"]
    assert not record.shard_provenance[0].upstream  # told once, in the shard


@pytest.mark.parametrize(
    ("now", "text", "rule"),
    [
        ({"masks": {"crf": {"iterations": 5}}}, "masks.crf.iterations 10, the configuration says 5",
         "masks"),
        ({"clip": {"template": ["a {}."]}}, 'the configuration says ["a {}."]', "cams"),
        ({"cams": {"affinity": {"power": 1}}}, "cams.affinity.power 2, the configuration says 1",
         "cams"),
    ],
)  # fmt: skip
def test_other_settings_are_refused(
    run: Run, tmp_path: Path, now: dict[str, Any], text: str, rule: str
) -> None:
    """Those of the shard's stage, and those of the stages before it."""
    before = _config(run)
    shard = _masks(run, _made(run, "masks", before, _made(run, "cams", before)))
    with pytest.raises(ProductError) as refused:
        run.score("masks", [shard], tmp_path / "s.json", config=_config(run, **now))
    for part in (str(shard), text, f"snakemake --cores all --forcerun {rule} "):
        assert part in str(refused.value)
    assert not (tmp_path / "s.json").exists()


def test_another_seed_is_refused_where_one_was_drawn(run: Run, tmp_path: Path) -> None:
    refine = {"method": "weclip"}
    trained = _made(run, "refine_train", _config(run, seed=1, refine=refine))
    shard = _masks(run, _made(run, "masks", _config(run), trained))
    with pytest.raises(ProductError, match=r"seed 1, the configuration says 0; .*refine_train"):
        run.score("masks", [shard], tmp_path / "s.json", config=_config(run, refine=refine))


def _tse(form: str, file: Path) -> dict[str, Any]:
    return {"cams": {"patch_text": {"tse": {"form": form, "knowledge": str(file)}}}}


@pytest.mark.parametrize("key", ["clip.pretrained", "cams.patch_text.tse.knowledge"])
def test_another_file_under_the_same_name_is_refused(run: Run, tmp_path: Path, key: str) -> None:
    file = tmp_path / "file.json"
    file.write_bytes(b"one")
    sections = {"clip": {"pretrained": str(file)}} if "clip" in key else _tse("topk", file)
    config = _config(run, **sections)
    shard = _masks(run, _made(run, "masks", config, _made(run, "cams", config)))
    file.write_bytes(b"two")
    with pytest.raises(ProductError, match=f"another file as {key}"):
        run.score("masks", [shard], tmp_path / "s.json", config=config)


def test_descriptions_that_no_text_uses_do_not_count(run: Run, tmp_path: Path) -> None:
    """When they change, the engine makes nothing again."""
    file = tmp_path / "file.json"
    file.write_bytes(b"one")
    files = _made(run, "cams", _config(run, **_tse("off", file))).files
    assert "cams.patch_text.tse.knowledge" not in files


def test_stages_with_different_weights_are_refused(run: Run, tmp_path: Path) -> None:
    config = _config(run)
    cams = _made(run, "cams", config).model_copy(update={"weights": {"clip": "other"}})
    shard = _masks(run, _made(run, "masks", config, cams))
    with pytest.raises(ProductError, match="other weights than the rest of its chain: 'clip'"):
        run.score("masks", [shard], tmp_path / "s.json", config=config)


def test_other_images_are_refused(run: Run, tmp_path: Path) -> None:
    config = _config(run)
    shard = _masks(run, _made(run, "masks", config, _made(run, "cams", config)))
    manifest = run.manifest_dir / "manifest.csv"
    write_checked_text(manifest, manifest.read_text().replace(run.samples[1].digest, "f" * 64))
    with pytest.raises(ProductError, match="images or classes: 'manifest'"):
        run.score("masks", [shard], tmp_path / "s.json", config=config)


def test_a_stage_warns_of_sources_made_with_other_values_of_what_it_reads(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    """Here a training that reads CAMs."""
    refine = {"method": "weclip"}
    cams = _made(run, "cams", _config(run, refine=refine))
    _made(run, "refine_train", _config(run, refine=refine), cams)
    assert not caplog.records
    other = _config(run, refine=refine, clip={"template": ["a {}."]})
    _made(run, "refine_train", other, cams)
    assert "cams: its stage cams was made with clip.template" in caplog.text
    assert "Scores refuse what is made from it" in caplog.text
