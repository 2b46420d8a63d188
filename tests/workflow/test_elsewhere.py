"""The workflow outside its source tree: in another folder, as a module, deployed, from a wheel."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from wsss.artifacts.shard import Shard

from .conftest import ENGINE, ROOT
from .jobs import run_snakemake

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
CONFIG = {
    "name": "tiny",
    "compute": {"workers": 1},
    "data": {"kind": "demo", "root": "results/tiny-data", "demo_images": [4, 2]},
}
TO_MASKS = {"refine": {"method": "none"}, "retrain": {"enabled": False}}
CAMS = "results/tiny/cams/train/1-of-1.h5"
SEGMENTERS = ("mmseg", "mmcv", "mmengine", "timm")


def _environment() -> dict[str, str]:
    """That of these tests, without what leads to their source tree."""
    # As the server of the jobs was started with them.
    given = {"PYTHONUNBUFFERED", "PYTHONDONTWRITEBYTECODE"}
    return {
        name: value
        for name, value in os.environ.items()
        if name in given or not name.startswith(("PYTHON", "WSSS_"))
    }


def _snakemake(*arguments: object, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run the engine in a folder; it and its jobs fork, and take the package of the workflow."""
    return run_snakemake(list(map(str, arguments)), cwd=folder, env=_environment())


def _run(
    *command: object, folder: Path, paths: tuple[Path, ...] = ()
) -> subprocess.CompletedProcess[str]:
    """Run a program in a folder, with nothing but ``paths`` in PYTHONPATH."""
    environment = _environment()
    if paths:
        environment["PYTHONPATH"] = os.pathsep.join(map(str, paths))
    return subprocess.run(
        list(map(str, command)),
        cwd=folder,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )


def _outer_workflow(folder: Path, snakefile: str, uses: str = "*") -> None:
    """A workflow that uses this one as a module, as `snakedeploy deploy-workflow` writes it."""
    (folder / "workflow").mkdir(parents=True)
    (folder / "config").mkdir()
    (folder / "config/config.yaml").write_text(json.dumps(CONFIG))
    (folder / "workflow/Snakefile").write_text(
        'configfile: "config/config.yaml"\n\n\n'
        f"module wsss:\n    snakefile:\n        {snakefile}\n    config:\n        config\n\n\n"
        f"use rule * from wsss as {uses}\n"
    )


def test_a_module_under_other_names_runs(tmp_path: Path) -> None:
    _outer_workflow(tmp_path, f'"{ROOT}/workflow/Snakefile"', uses="wsss_*")
    done = _snakemake("--cores", "1", "--", CAMS, folder=tmp_path)
    assert done.returncode == 0, done.stderr
    (log,) = (tmp_path / ".snakemake/log").iterdir()
    rules = re.findall(r"^Finished jobid: \d+ \(Rule: (\w+)\)", log.read_text(), re.MULTILINE)
    assert rules == ["wsss_demo_data", "wsss_ingest", "wsss_cams"]
    with Shard(tmp_path / CAMS) as shard:
        assert len(shard) == 4


def test_a_module_with_a_prefix_is_refused(tmp_path: Path) -> None:
    _outer_workflow(tmp_path, f'"{ROOT}/workflow/Snakefile"\n    prefix:\n        "out"')
    done = _snakemake("--dry-run", "--cores", "1", folder=tmp_path)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: module wsss: prefix and replace_prefix")


def test_another_folder_takes_the_shipped_configuration(tmp_path: Path) -> None:
    changes = ["--config", f"data={json.dumps(CONFIG['data'])}"]
    manifest = "results/demo/manifest/manifest.csv"
    arguments = ["--cores", "1", "--directory", tmp_path, *changes, "--", manifest]
    done = _snakemake(*arguments, folder=ROOT)
    assert done.returncode == 0, done.stderr
    assert len((tmp_path / manifest).read_text().splitlines()) == 1 + 4 + 2


def test_the_configuration_of_the_folder_comes_first(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    arguments = ["--dry-run", "--cores", "1", "--snakefile", ROOT / "Snakefile"]
    done = _snakemake(*arguments, folder=tmp_path)
    assert "results/tiny/" in done.stdout
    assert "results/demo/" not in done.stdout


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The installed wheel, and what hides the source tree and the packages of the segmenters.

    As for a release, the wheel is built from the source archive.
    """
    folder = tmp_path_factory.mktemp("wheel")
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-deps", "--no-index"]
    hatch = [sys.executable, "-m", "hatchling", "build", "--target", "sdist", "--directory", folder]
    done = _run(*hatch, folder=ROOT)
    assert done.returncode == 0, done.stderr
    (archive,) = folder.glob("wsss-*.tar.gz")
    build = ["wheel", *offline, "--no-build-isolation", "--wheel-dir", folder, archive]
    done = _run(*pip, *build, folder=folder)
    assert done.returncode == 0, done.stderr
    (wheel,) = folder.glob("wsss-*.whl")
    install = ["install", *offline, "--no-compile", "--target", folder / "site", wheel]
    done = _run(*pip, *install, folder=folder)
    assert done.returncode == 0, done.stderr
    base = folder / "base"
    base.mkdir()
    (base / "sitecustomize.py").write_text(
        f"import sys\nsys.path[:] = [path for path in sys.path if path != {str(ROOT)!r}]\n"
        f"sys.modules |= dict.fromkeys({SEGMENTERS})\n"
    )
    return folder / "site", base


def test_a_wheel_holds_the_workflow(installed: tuple[Path, Path], tmp_path: Path) -> None:
    """The base installation, without segmenters, plans every stage up to masks and their scores."""
    code = "from wsss.pipeline.engine import workflow_folder; print(workflow_folder())"
    folder = _run(sys.executable, "-c", code, folder=tmp_path, paths=installed).stdout.strip()
    assert Path(folder).is_relative_to(installed[0])
    for part in ("presets", "profiles", "report", "rules", "schemas", "tables"):
        files = {path.name for path in (ROOT / "workflow" / part).rglob("*.*")}
        assert files
        assert {path.name for path in Path(folder, part).rglob("*.*")} == files
    (tmp_path / "photos.yaml").write_text(json.dumps(CONFIG | TO_MASKS))
    arguments = ["--dry-run", "--cores", "1", "--snakefile", f"{folder}/Snakefile"]
    arguments += ["--directory", "out", "--configfile", "photos.yaml"]
    done = _run(ENGINE, *arguments, folder=tmp_path, paths=installed)
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"Using workflow specific profile {folder}/profiles/default" in done.stderr
    for rule in ("cams", "masks", "score", "page"):
        assert re.search(rf"^{rule} +\d+$", done.stdout, re.MULTILINE), rule


def test_a_segmenter_without_its_packages(installed: tuple[Path, Path], tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text(json.dumps(CONFIG))
    snakefile = installed[0] / "wsss/workflow/Snakefile"
    engine = _run(ENGINE, "--dry-run", "--snakefile", snakefile, folder=tmp_path, paths=installed)
    options = ["--manifest", "a", "--checkpoint", "b", "--split", "val", "--out", "c"]
    stage = _run(
        sys.executable, "-m", "wsss", "retrain-predict", *options, folder=tmp_path, paths=installed
    )
    for done in (engine, stage):
        assert done.returncode == 1
        assert done.stderr.splitlines()[-1] == (
            "error: not installed: mmseg, mmcv, mmengine, for segmenters and checkpoints of "
            "mmengine; pip install 'wsss[segment]', or end with the pseudo masks "
            "(retrain.enabled: false)"
        )


def test_a_deployed_version_runs_with_the_installed_package(
    installed: tuple[Path, Path], tmp_path: Path
) -> None:
    """Files come from a commit, as from GitHub; nothing but the package is on this machine."""
    clone = tmp_path / "clone"
    git = ["git", "-c", "user.name=a", "-c", "user.email=a@b", "-C", clone]
    for command in (["init", "--quiet"], ["add", "."], ["commit", "--quiet", "--message", "all"]):
        clone.mkdir(exist_ok=True)
        if command[0] == "add":
            for name in ("workflow", "envs"):
                subprocess.run(["cp", "-r", ROOT / name, clone], check=True)
        assert _run(*git, *command, folder=tmp_path).returncode == 0
    commit = _run(*git, "rev-parse", "HEAD", folder=tmp_path).stdout.strip()
    snakefile = f'gitfile("{clone}", path="workflow/Snakefile", commit="{commit}")'
    _outer_workflow(tmp_path / "deployed", snakefile)
    site, _ = installed
    done = _run(ENGINE, "--dry-run", "--cores", "1", folder=tmp_path / "deployed", paths=(site,))
    assert re.search(r"^retrain +1$", done.stdout, re.MULTILINE), done.stdout + done.stderr


def test_a_missing_system_library_is_named(tmp_path: Path) -> None:
    reason = "libGL.so.1: cannot open shared object file: No such file or directory"
    (tmp_path / "cv2.py").write_text(f"raise ImportError({reason!r})\n")
    command = [sys.executable, "-m", "wsss", "masks", "a.h5", "--manifest", "b"]
    command += ["--out", "c", "--png", "d"]
    done = _run(*command, folder=tmp_path, paths=(tmp_path, ROOT))
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"error: OpenCV does not start ({reason}); install the library (" in done.stderr
