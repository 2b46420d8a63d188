"""A process that imports large packages once and then forks: `python -m wsss …`, or `snakemake`.

Most of a job of the tests is the import of these packages. A child is the program after them, in a
folder and an environment of its own. With the first program of a project a second server forks from
the first, which imports the package of that project, too, as its sources are now; it ends when
nobody asks it for a while. `job_client.py` takes the place of `python` in the jobs of an engine of
the tests, and knows the server of its project by the sources. Engines of `run_snakemake` are
children, too.
"""

import atexit
import gc
import importlib
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path

_ROOT = Path(__file__).parents[2]
_CLIENT = Path(__file__).with_name("job_client.py")
_IMPORTED = (
    "torch.utils.data", "torch.utils.checkpoint", "scipy.sparse", "scipy.io",
    "matplotlib.figure", "matplotlib.backends.backend_agg", "matplotlib.font_manager", "cv2",
    "h5py", "jaxtyping", "numpy.typing", "PIL.ImageDraw", "pycocotools.mask", "pydantic", "psutil",
    "pydensecrf.densecrf", "rich.progress", "rich.table", "safetensors.torch", "typer",
    "threadpoolctl", "yaml", "huggingface_hub", "concurrent.futures.process", "torch._dynamo",
    "torch.distributed.tensor", "torch.distributed.fsdp", "mmseg.evaluation.metrics", "yapf",
)  # fmt: skip
"""What stages take from other packages, apart from those that need remedies."""
_ENGINE = (
    "snakemake.cli", "snakemake.executors.local", "snakemake.profiles", "snakemake.storage",
    "snakemake.report.html_reporter", "smart_open", "grimp",
    "snakemake_executor_plugin_slurm", "snakemake_executor_plugin_slurm_jobstep",
)  # fmt: skip
"""What an engine takes from them: one of the tests, or a job of `wsss photos` or Slurm."""
_PACKAGE = (
    "wsss.__main__", "wsss.config.model", "wsss.cams.stage", "wsss.masks.stage",
    "wsss.refine.stage", "wsss.refine.weclip.method", "wsss.retrain.train", "wsss.retrain.predict",
    "wsss.score.stage", "wsss.score.tables.write", "wsss.score.page.build",
    "wsss.score.figures.curves", "wsss.data.ingest.stage",
)  # fmt: skip
"""What a project's server imports of its package."""
_IDLE = 60.0
"""Seconds after which a project's server ends."""
_BEFORE_START = ("PYTHON", "OMP_", "MKL_", "KMP_", "LC_", "LANG", "LD_", "CUDA", "ATEN", "DNNL",
                 "HF_")  # fmt: skip
"""Variables that are read while Python and packages start, by their first letters."""
_THREADS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "GOTO_NUM_THREADS")
"""Variables that the engine sets for each job: a child sets torch's threads by them."""
_LENGTH = 8
"""Bytes of the number that says how long a request is."""


_AT_START = dict(os.environ)
"""The environment of the tests, before one of them changes it for itself."""


def _start_values(environment: Mapping[str, str]) -> dict[str, set[str]]:
    """What these variables say; of paths, the set."""
    return {
        name: set(filter(None, value.split(os.pathsep)))
        for name, value in environment.items()
        if name.startswith(_BEFORE_START) and name not in ("PYTHONPATH", *_THREADS)
    }


_STARTED_WITH = _start_values(os.environ)


def _started_alike(environment: Mapping[str, str]) -> bool:
    """Whether a process of this environment is this one, but for what imports add: cv2 a path."""
    given, imported, nothing = _start_values(environment), _start_values(os.environ), set[str]()
    return all(
        _STARTED_WITH.get(name, nothing) <= given.get(name, nothing) <= imported.get(name, nothing)
        for name in (given | imported)
    )


@cache
def python_of_jobs() -> Path:
    """A `python` whose ``-m wsss`` is a child of this process's server; it ends with this one."""
    folder = Path(tempfile.mkdtemp(prefix="wsss-jobs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    address, python = folder / "socket", folder / "python"
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" -I -S "{_CLIENT}" '
                      f'"{address}" "{sys.executable}" "$@"\n')  # fmt: skip
    python.chmod(0o755)
    environment = {k: v for k, v in _AT_START.items() if k != "PYTHONPATH"}
    environment |= dict.fromkeys(_THREADS, "1")
    server = subprocess.Popen(
        [sys.executable, __file__, str(address)], env=environment, cwd="/",
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    assert server.stdout is not None
    server.stdout.readline()  # it listens
    _SERVERS.append(server)
    return python


def run_snakemake(
    arguments: Sequence[str], *, cwd: Path, env: Mapping[str, str]
) -> subprocess.CompletedProcess[str]:
    """Run ``snakemake …`` to its end in a folder; it and its jobs fork.

    Args:
        arguments: of the command line.
        cwd: folder.
        env: the whole environment.
    """
    return subprocess.run(
        [python_of_jobs(), "-m", "snakemake", *arguments], cwd=cwd, env=env, text=True,
        stdin=subprocess.DEVNULL, capture_output=True, check=False,
    )  # fmt: skip


def forking(environment: Mapping[str, str]) -> dict[str, str]:
    """An environment in which programs of Python name `python_of_jobs` as their interpreter.

    An engine's jobs fork then, whoever starts the engine. It replaces PYTHONPATH, and names the
    package that these tests stand beside, whichever one is installed.
    """
    folder = python_of_jobs().parent
    customization = f"import sys\nsys.executable = {str(python_of_jobs())!r}\n"
    (folder / "sitecustomize.py").write_text(customization)
    return {**environment, "PYTHONPATH": os.pathsep.join([str(folder), str(_ROOT)])}


_SERVERS: list[subprocess.Popen[bytes]] = []
"""They end when their standard input is closed, so it must stay open as long as this process."""


def _listen(address: str) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(address)
    listener.listen(64)
    return listener


def _serve(listener: socket.socket, idle: float | None = None) -> str:
    """Answer requests until standard input ends; in a child, return its program."""
    children: dict[int, tuple[int, socket.socket]] = {}
    # By a file that is ready when the child ends: its process, and the connection to its client.

    def fork(client: socket.socket) -> bool:
        """Whether this is the child."""
        process = os.fork()
        if process:
            children[os.pidfd_open(process)] = process, client
            return False
        listener.close()
        client.close()
        for file, (_, other) in children.items():
            os.close(file)
            other.close()
        return True

    while True:
        clients = {client: process for process, client in children.values() if client.fileno() >= 0}
        waiting = [listener, sys.stdin, *children, *clients]
        ready, _, _ = select.select(waiting, [], [], None if children else idle)
        if not ready or sys.stdin in ready:
            with suppress(FileNotFoundError):
                os.unlink(listener.getsockname())
            os._exit(0)
        for file in [file for file in children if file in ready]:
            process, client = children.pop(file)
            _, state = os.waitpid(process, 0)
            os.close(file)
            with suppress(OSError), client:  # the client may be gone
                client.sendall(str(os.waitstatus_to_exitcode(state)).encode())
        for client in [client for client in clients if client in ready]:
            if client.fileno() >= 0:  # it ended before its child
                os.kill(clients[client], signal.SIGTERM)
                client.close()
        if listener in ready:
            client, _ = listener.accept()
            request, files = _receive(client)
            address = request.get("address")
            if address and not os.path.exists(str(address)) and fork(_closed()):
                client.close()
                for file in files:
                    os.close(file)
                return _serve_project(str(address), str(request["package"]))
            if request and fork(client):
                return _become(request, files)
            for file in files:
                os.close(file)


def _closed() -> socket.socket:
    """A connection to nobody, who does not wait for the child's end."""
    connection = socket.socket(socket.AF_UNIX)
    connection.close()
    return connection


def _serve_project(address: str, package: str) -> str:
    """The same with the package of a project, from the folder that holds it."""
    try:
        listener = _listen(address)
    except OSError:  # another request was first
        os._exit(0)
    sys.path.insert(0, package)
    for name in _PACKAGE:
        with suppress(ImportError):  # needs an extra that is not installed
            importlib.import_module(name)
    prepare(sys.modules.pop("wsss.__main__").app)  # a job runs that module again
    del sys.path[0]
    gc.freeze()
    return _serve(listener, _IDLE)


def _import_packages() -> None:
    """Import other packages, those that need remedies with the package's own, and forget that."""
    import warnings

    path = list(sys.path)
    sys.path.insert(0, str(_ROOT))
    with warnings.catch_warnings():
        from wsss._compat import import_open_clip

        import_open_clip()
        for name in ("wsss.retrain.mm", *_IMPORTED, *_ENGINE):
            with suppress(ImportError):  # an extra that is not installed
                importlib.import_module(name)
    for name in [name for name in sys.modules if name.partition(".")[0] == "wsss"]:
        del sys.modules[name]
    sys.path[:] = path
    importlib.invalidate_caches()
    gc.freeze()


def _receive(client: socket.socket) -> tuple[dict[str, object], list[int]]:
    """A request and the client's standard files; empty for one that needs another start."""
    client.settimeout(_IDLE)
    files: list[int] = []
    with suppress(OSError):  # the client was killed
        head, files, _, _ = socket.recv_fds(client, _LENGTH, 3)
        length, content = int.from_bytes(head, "big"), b""
        while len(content) < length and (part := client.recv(length - len(content))):
            content += part
        if len(head) == _LENGTH and len(content) == length:  # else it was killed while it wrote
            request = json.loads(content)
            if _threads(request["env"]) is not None and _started_alike(request["env"]):
                return request, files
            client.sendall(b"again")
    client.close()
    return {}, files


def _threads(environment: dict[str, str]) -> int | None:
    """Threads of torch that the variables ask for; None where they differ."""
    default = environment.get(_THREADS[0], str(os.cpu_count()))
    counts = {environment.get(name, default) for name in _THREADS}
    return int(counts.pop()) if len(counts) == 1 else None


def _become(request: dict[str, object], files: list[int]) -> str:
    """Make this process what a shell would have started; its program."""
    import torch

    for target, file in enumerate(files):
        os.dup2(file, target)
        os.close(file)
    folder, environment = str(request["cwd"]), request["env"]
    arguments = request["arguments"]
    assert isinstance(environment, dict)
    assert isinstance(arguments, list)
    if threads := _threads(environment):
        torch.set_num_threads(threads)
    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    packages = sys.path[1:]  # the first is the folder of this file
    given = environment.get("PYTHONPATH", "").split(os.pathsep)
    sys.path[:] = [folder, *filter(None, given), *packages]
    sys.argv = ["-m", *arguments]
    sys.orig_argv = [sys.executable, "-m", str(request["program"]), *arguments]
    if request["program"] == "snakemake":
        sys.executable = str(request["python"])
    sys.modules.pop("sitecustomize", None)
    with suppress(ImportError):  # as Python does when it starts
        importlib.import_module("sitecustomize")
    return str(request["program"])


if __name__ == "__main__":
    sys.path.insert(1, str(_ROOT))
    from tests.forked_program import prepare, run_and_end

    del sys.path[1]
    first = _listen(sys.argv[1])
    print("listens", flush=True)
    _import_packages()
    program = _serve(first)
    run_and_end(lambda: runpy.run_module(program, run_name="__main__", alter_sys=True))
