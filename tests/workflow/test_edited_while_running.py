"""Code, rules and configuration that are edited while an engine runs, and set back before it ends.

The edits are made at exact moments: by the processes of the jobs, and by the command that submits
jobs to a cluster.
"""

import shutil
import sys
from pathlib import Path

import pytest

from wsss.artifacts.shard import Shard

from .conftest import RUN, Project

pytestmark = [pytest.mark.workflow, pytest.mark.slow]
_MASKS = [f"results/{RUN}/masks/train/{part}-of-2.h5" for part in (1, 2)]
_LOGS = [f"results/{RUN}/logs/masks/train.{part}-of-2.log" for part in (1, 2)]
_CHANGED = "code of stage masks changed since the engine started: wsss/labels/background.py; start"

# Python imports this module when it starts. The job of part 1 is edited before it does anything;
# that of part 2 before it imports what was edited.
_EDITS_OF_CODE = """
import atexit, os, sys
from pathlib import Path

source = Path("wsss/labels/background.py")

def edit():
    before = source.read_text()
    source.write_text(before + "\\nEDITED = 1\\n")
    atexit.register(source.write_text, before)

def before_import(event, arguments):
    if event == "import" and arguments[0] == "wsss.labels.background":
        edit()

if "WSSS_JOB" in os.environ and "masks" in sys.orig_argv:
    if "1-of-2" in " ".join(sys.orig_argv):
        edit()
    else:
        sys.addaudithook(before_import)
"""
# Submits to this machine. The configuration is another one while part 1 is made, the rules are
# while part 2 is.
_SUBMIT = """
import subprocess, sys
from pathlib import Path

script = Path(sys.argv[1])
first = "part=1-of-2" in script.read_text()
file = Path("tiny.yaml" if first else "workflow/rules/masks.smk")
before = file.read_text()
after = before.replace("{", '{"masks": {"min_confidence": 0.9}, ', 1) if first else before + "#\\n"
file.write_text(after)
done = subprocess.run([script], stdout=sys.stderr, check=False)
file.write_text(before)
print(1)
"""


@pytest.fixture(scope="module")
def project(finished: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    copy = Project(tmp_path_factory.mktemp("edited") / "project")
    shutil.copytree(finished.root, copy.root)
    return copy


def test_edited_code_is_not_used(project: Project) -> None:
    customization = project.root / "sitecustomize.py"
    customization.write_text(_EDITS_OF_CODE)
    done = project.snakemake(
        "--cores", "1", "-k", "--forcerun", "masks", "--", *_MASKS, check=False
    )
    customization.unlink()
    assert done.returncode
    for target, log in zip(_MASKS, _LOGS, strict=True):
        assert _CHANGED in " ".join((project.root / log).read_text().split())
        assert not (project.root / target).exists()


def test_a_cluster_takes_no_edited_configuration_and_no_edited_rules(
    project: Project, tmp_path: Path
) -> None:
    submit = tmp_path / "submit.py"
    submit.write_text(_SUBMIT)
    done = project.snakemake(
        *("--executor", "cluster-generic", "--jobs", "1", "--latency-wait", "5", "-k"),
        *("--seconds-between-status-checks", "1"),
        *("--cluster-generic-submit-cmd", f"{sys.executable} {submit}"),
        *("--forcerun", "masks", "--", *_MASKS),
        check=False,
    )
    with Shard(project.root / _MASKS[0]) as shard:
        assert shard.provenance.config["masks"]["min_confidence"] == 0.95
    edited = project.root / "workflow/rules/masks.smk"
    assert f"rules of the workflow changed since the engine started: {edited}; start the same" in (
        done.stderr + done.stdout
    )
    assert done.returncode
    assert not (project.root / _MASKS[1]).exists()
    assert project.would_run(*_MASKS) == {"masks": 1}
