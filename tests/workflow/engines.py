"""A process that imports Snakemake once and then forks: `snakemake …` without seconds of imports.

A child is the program after the imports of other packages, in a folder and an environment of its
own. The package and the workflow are not among them: each child imports those of its project. The
server is single-threaded. It reads requests as lines of JSON and answers each with one.
"""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

_IMPORTED = (
    "snakemake.cli", "snakemake.profiles", "snakemake.report.html_reporter", "snakemake.storage",
    "snakemake_executor_plugin_slurm", "PIL.ImageDraw", "cv2", "grimp", "h5py", "jaxtyping",
    "numpy", "pycocotools.mask", "pydantic", "rich.progress", "smart_open", "yaml",
)  # fmt: skip
"""What the engine and the rules take from other packages."""


class Engines:
    """The server; it ends with the process that started it."""

    def __init__(self) -> None:
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [sys.executable, __file__], env=environment, cwd="/", text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )  # fmt: skip

    def run(
        self,
        arguments: Sequence[str],
        *,
        cwd: Path,
        env: Mapping[str, str],
        python: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run `snakemake` to its end.

        Args:
            arguments: of the command line.
            cwd: folder.
            env: the whole environment.
            python: the interpreter of jobs; None: that of the engine.
        """
        request = {
            "arguments": list(arguments),
            "cwd": str(cwd),
            "env": dict(env),
            "python": str(python or sys.executable),
        }
        self._process.stdin.write(json.dumps(request) + "\n")
        self._process.stdin.flush()
        answer = json.loads(self._process.stdout.readline())
        return subprocess.CompletedProcess(["snakemake", *arguments], **answer)


@cache
def engines() -> Engines:
    """The server of this process."""
    return Engines()


def _serve() -> None:
    """Answer requests until standard input ends; in a child, return to run on as `snakemake`."""
    import gc
    import importlib
    import tempfile

    for name in _IMPORTED:
        importlib.import_module(name)
    sys.modules["PIL.Image"].init()
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as err:
            pid = os.fork()
            if not pid:
                _become(request, out.fileno(), err.fileno())
                return
            _, state = os.waitpid(pid, 0)
            texts = []
            for file in (out, err):
                file.seek(0)
                texts.append(file.read().decode())
        code = os.waitstatus_to_exitcode(state)
        print(json.dumps({"returncode": code, "stdout": texts[0], "stderr": texts[1]}), flush=True)


def _become(request: Mapping[str, object], out: int, err: int) -> None:
    """Make this process what a shell would have started."""
    for descriptor, target in ((os.open(os.devnull, os.O_RDONLY), 0), (out, 1), (err, 2)):
        os.dup2(descriptor, target)
    os.chdir(str(request["cwd"]))
    os.environ.clear()
    os.environ.update(request["env"])
    sys.argv = ["snakemake", *request["arguments"]]
    sys.executable = request["python"]


if __name__ == "__main__":
    _serve()
    if sys.argv[0] == "snakemake":
        sys.path.insert(1, str(Path(__file__).parents[2]))
        from tests.forked_program import run_and_end

        del sys.path[1]
        from snakemake.cli import main

        run_and_end(lambda: sys.exit(main()))
