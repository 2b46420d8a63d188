"""A process that imports torch and mmsegmentation once and then forks: `python -m wsss …`.

Half of a job of the tests is the import of these packages. A child is the program after them, in a
folder and an environment of its own. The package is not among them: each child imports that of its
project. `job_client.py` takes the place of `python` in the jobs of an engine of the tests.
"""

import atexit
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path

_CLIENT = Path(__file__).with_name("job_client.py")
_IMPORTED = (
    "torch.utils.data", "torch.utils.checkpoint", "scipy.sparse", "scipy.io",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.font_manager", "cv2",
    "h5py", "jaxtyping", "numpy.typing", "PIL.ImageDraw", "pycocotools.mask", "pydantic", "psutil",
    "pydensecrf.densecrf", "rich.progress", "rich.table", "safetensors.torch", "typer",
    "threadpoolctl", "yaml", "huggingface_hub", "concurrent.futures.process",
)  # fmt: skip
"""What stages take from other packages, apart from those that need remedies."""
_BEFORE_START = ("PYTHON", "OMP_", "MKL_", "KMP_", "LC_", "LANG", "LD_", "CUDA", "ATEN", "DNNL")
"""Variables that are read while Python and torch start, by their first letters."""
_LENGTH = 8
"""Bytes of the number that says how long a request is."""


def _start_values(environment: dict[str, str]) -> dict[str, str]:
    return {
        name: value
        for name, value in environment.items()
        if name.startswith(_BEFORE_START) and name != "PYTHONPATH"
    }


_STARTED_WITH = _start_values(dict(os.environ))


@cache
def python_of_jobs() -> Path:
    """A `python` whose ``-m wsss`` is a child of this process's server; it ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="wsss-jobs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, python = folder / "socket", folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_CLIENT}" '
                      f'"{address}" "{sys.executable}" "$@"\n')  # fmt: skip
    python.chmod(0o755)
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], env=environment, cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    _SERVERS.append(server)
    return python


_SERVERS: list[subprocess.Popen[bytes]] = []
"""They end when their standard input is closed, so it must stay open as long as this process."""


def _serve(address: str) -> list[str]:
    """Answer requests until standard input ends; in a child, return its arguments."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    print("listens", flush=True)
    _import_packages()
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who answer
    while True:
        ready, _, _ = select.select([listener, sys.stdin], [], [])
        if sys.stdin in ready:
            os._exit(0)
        connection, _ = listener.accept()
        if not os.fork():
            listener.close()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            return _answer(connection)
        connection.close()


def _import_packages() -> None:
    """Import other packages, those that need remedies with the package's own, and forget that."""
    import gc
    import importlib
    import warnings

    path = list(sys.path)
    sys.path.insert(0, str(Path(__file__).parents[2]))
    with warnings.catch_warnings():
        from wsss._compat import import_open_clip

        import_open_clip()
        for name in ("wsss.retrain.mm", *_IMPORTED):
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wsss"]:
        del sys.modules[name]
    sys.path[:] = path
    importlib.invalidate_caches()
    gc.freeze()


def _answer(connection: socket.socket) -> list[str]:
    """Run one request in a child, which returns; tell its exit code, or end it with its client."""
    head, files, _, _ = socket.recv_fds(connection, _LENGTH, 3)
    length = int.from_bytes(head, "big")
    content = b""
    while len(content) < length:
        content += connection.recv(length - len(content))
    request = json.loads(content)
    if _start_values(request["env"]) != _STARTED_WITH:
        connection.sendall(b"again")
        os._exit(0)
    job = os.fork()
    if not job:
        connection.close()
        return _become(request, files)
    for file in files:
        os.close(file)
    process = os.pidfd_open(job)
    ready, _, _ = select.select([connection, process], [], [])
    if process not in ready:
        os.kill(job, signal.SIGTERM)
    _, state = os.waitpid(job, 0)
    with suppress(BrokenPipeError):
        connection.sendall(str(os.waitstatus_to_exitcode(state)).encode())
    os._exit(0)


def _become(request: dict[str, object], files: list[int]) -> list[str]:
    """Make this process what a shell would have started; its arguments."""
    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    folder, environment = str(request["cwd"]), request["env"]
    arguments = request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    packages = sys.path[1:]  # the first is the folder of this file
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, given), *packages]
    sys.argv = ["-m", *arguments]
    sys.orig_argv = [sys.executable, "-m", "wsss", *arguments]
    return arguments


if __name__ == "__main__":
    _serve(sys.argv[1])
    import runpy

    runpy.run_module("wsss", run_name="__main__", alter_sys=True)
