"""What a container lacks: the user that `docker run --user` names is in no list of users."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.machines import name_space

from .conftest import ENGINE, copy_project

pytestmark = pytest.mark.workflow
_NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


def test_a_user_without_a_name(tmp_path: Path) -> None:
    project = copy_project(tmp_path)
    environment = {name: value for name, value in os.environ.items() if name not in _NAMES}
    user = name_space("-U", "--map-user=54321", "--map-group=54321")
    done = subprocess.run(
        [*user, str(ENGINE), "--cores", "1", "--configfile", "tiny.yaml", "--dry-run"],
        cwd=project.root,
        env=environment,
        text=True,
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "getpwuid" not in done.stderr
