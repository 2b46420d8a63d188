"""Every benchmark and every script of pictures imports what exists, and explains itself."""

import importlib
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
_ROOT = Path(__file__).parents[1]
_MODULES = sorted(path.stem for path in _ROOT.glob("benchmarks/[a-z]*.py")) + [
    f"{path.parent.name}.__main__" for path in _ROOT.glob("benchmarks/*/__main__.py")
]
_PICTURES = sorted(path.stem for path in _ROOT.glob("docs/img/*.py"))


def test_modules_import_and_programs_have_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["program", "--help"])
    programs = []
    for name in _MODULES:
        module = importlib.import_module(f"benchmarks.{name}")
        if hasattr(module, "main"):
            programs.append(name)
            with pytest.raises(SystemExit, match=r"^0$"):
                module.main()
            assert capsys.readouterr().out.startswith("usage: program"), name
    assert {
        "ablation",
        "cams",
        "determinism",
        "excel",
        "rehearse.__main__",
        "weakclip",
        "weclip",
    } <= set(programs)


@pytest.mark.parametrize("name", _PICTURES)
def test_scripts_of_pictures_import(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(_ROOT / "docs/img")
    assert "draw" in runpy.run_path(str(_ROOT / f"docs/img/{name}.py"), run_name="imported")


def test_speed_is_that_of_photographs() -> None:
    """The embedded demo's smaller settings are the defaults of a configuration without data."""
    from argparse import Namespace

    from benchmarks import cams, excel, gpu, weakclip, weclip

    model = "ViT-B-16-quickgelu"
    options = Namespace(device="cpu", model=model, batch=2)
    configs = [
        cams._config(model, "float32"),
        excel.configuration(model, "cpu"),
        weakclip.configuration(options, "corrected"),
        weclip.configuration(model, "cpu", "corrected"),
        *(gpu.configuration(model, method) for method in gpu.METHODS),
    ]
    for config in configs:
        assert config.data.kind == "voc"
        assert config.cams.has_affinity
        assert config.clip.long_side == 512
