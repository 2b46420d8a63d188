"""``crf.backend``: what auto stands for, one key for every CRF, and a record that names it."""

import sys

import numpy as np
import pytest

import wsss
from wsss.artifacts.stage import STAGES, source_differences
from wsss.config.errors import ConfigError
from wsss.config.load import from_mapping
from wsss.config.model import Config
from wsss.labels.crf import MissingBackendError, dense_crf
from wsss.refine.weakclip.boundary import boundary_crf


@pytest.fixture
def without_pydensecrf(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pydensecrf", None)


def backends(config: Config) -> list[str]:
    """Of masks, seeds, predictions and the boundary loss."""
    assert config.predict.crf_settings is not None
    boundary = boundary_crf(config.refine.weakclip.boundary, 8)
    sections = config.masks.crf, config.seeds.crf, config.predict.crf_settings, boundary
    return [section.backend for section in sections]


@pytest.mark.usefixtures("without_pydensecrf")
def test_auto_is_torch_where_pydensecrf_is_absent() -> None:
    config = from_mapping({"predict": {"crf_settings": {}}, "seeds": {"crf": {"backend": "auto"}}})
    assert backends(config) == ["torch"] * 4
    scores, photo = np.random.default_rng(0).random((2, 6, 8)), np.zeros((6, 8, 3), np.uint8)
    assert np.allclose(wsss.dense_crf(photo, scores).sum(0), 1, atol=1e-5)


def test_auto_is_pydensecrf_where_it_is_installed() -> None:
    pytest.importorskip("pydensecrf", reason="pydensecrf2 (wsss[crf]) is not installed")
    assert backends(from_mapping({"predict": {"crf_settings": {}}})) == ["pydensecrf"] * 4


@pytest.mark.usefixtures("without_pydensecrf")
def test_a_backend_that_is_named_and_absent_names_the_extra() -> None:
    config = from_mapping({"masks": {"crf": {"backend": "pydensecrf"}}}).masks.crf
    scores, photo = np.full((2, 6, 8), 0.5), np.zeros((6, 8, 3), np.uint8)
    with pytest.raises(MissingBackendError, match=r"pydensecrf2.*wsss\[crf\].*backend to torch"):
        dense_crf(scores, photo, config)
    with pytest.raises(ImportError, match=r"wsss\[crf\]"):
        wsss.dense_crf(photo, scores, backend="pydensecrf")


def test_every_crf_takes_the_backend_of_the_masks_unless_it_names_one() -> None:
    masks = {"masks": {"crf": {"backend": "torch"}}}
    sections = {"predict": {"crf_settings": {"iterations": 3}}, "seeds": {"crf": {"enabled": True}}}
    config = from_mapping(masks | sections)
    assert backends(config) == ["torch"] * 4
    assert config.seeds.crf.enabled
    assert from_mapping(masks).predict.crf_settings is None
    own = {"refine": {"weakclip": {"boundary": {"backend": "pydensecrf"}}}}
    assert backends(from_mapping(masks | sections | own))[-1] == "pydensecrf"


def test_other_backends_and_sections_are_refused_once() -> None:
    with pytest.raises(ConfigError, match=r"masks.crf.backend: .*'pydensecrf' or 'torch'") as error:
        from_mapping({"masks": {"crf": {"backend": "gpu"}}})
    assert "seeds.crf" not in str(error.value)
    with pytest.raises(ConfigError, match=r"seeds: .*expected a section"):
        from_mapping({"masks": {"crf": {"backend": "torch"}}, "seeds": 3})
    with pytest.raises(ValueError, match=r"^backend: "):
        wsss.dense_crf(np.zeros((6, 8, 3), np.uint8), np.full((2, 6, 8), 0.5), backend="gpu")


@pytest.mark.parametrize("name", ["masks", "seeds", "predict", "refine_predict"])
def test_results_of_two_backends_never_share_a_key(name: str) -> None:
    """With ``auto`` on two machines, of which one has the package."""
    provenances = {}
    stage = STAGES[name]
    for backend in ("pydensecrf", "torch"):
        config = from_mapping(
            {
                "masks": {"crf": {"backend": backend}},
                "predict": {"crf_settings": {"iterations": 3}},
            }
        )
        provenances[backend] = stage.provenance(stage.select(config))
        assert f"'backend': '{backend}'" in str(provenances[backend].config)
    assert provenances["pydensecrf"].key() != provenances["torch"].key()
    differences = source_differences(provenances["pydensecrf"], provenances["torch"])
    assert any(
        'backend "pydensecrf", the configuration says "torch"' in text for text in differences[name]
    )
