"""`python …` in a job of the tests: a program of `jobs.py` is asked of the server there.

Everything else, and what needs another start of Python, is the interpreter itself. Python runs this
without its site packages.
"""

import hashlib
import json
import os
import signal
import socket
import sys
from contextlib import suppress

_OTHERWISE = b"again"


def package_folder() -> str:
    """The folder whose package this job imports, if it is a project; empty: another one."""
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    for folder in (os.getcwd(), *filter(None, paths)):
        if os.path.isfile(os.path.join(folder, "wsss", "cli", "app.py")):
            # What a project does when Python starts comes before the imports of its package.
            return "" if os.path.exists(os.path.join(folder, "sitecustomize.py")) else folder
    return ""


def source_stamp(folder: str) -> str:
    """Of the place, names, sizes and times of a project's sources."""
    stamp = hashlib.sha256(folder.encode())
    for parent, folders, names in os.walk(os.path.join(folder, "wsss")):
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in sorted(name for name in names if name.endswith(".py")):
            path = os.path.join(parent, name)
            about = os.stat(path)
            stamp.update(f"{path} {about.st_size} {about.st_mtime_ns}\n".encode())
    return stamp.hexdigest()[:16]


def connect(*addresses: str) -> socket.socket:
    """To the first server that listens."""
    for address in filter(None, addresses):
        server = socket.socket(socket.AF_UNIX)
        with suppress(FileNotFoundError, ConnectionRefusedError):
            server.connect(address)
            return server
        server.close()
    raise SystemExit(f"no server of the tests at {addresses}")


def main(address: str, interpreter: str, *arguments: str) -> None:
    """Run to the end of the job, and end as it does."""
    if arguments[:2] in (("-m", "wsss"), ("-m", "snakemake")):
        package = package_folder()
        of_project = f"{address}-{source_stamp(package)}" if package else ""
        request = {
            "program": arguments[1], "arguments": arguments[2:], "cwd": os.getcwd(),
            "env": dict(os.environ), "package": package,
            "address": of_project,
            "python": os.path.join(os.path.dirname(address), "python"),
        }  # fmt: skip
        content = json.dumps(request).encode()
        with connect(of_project, address) as server:
            socket.send_fds(server, [len(content).to_bytes(8, "big")], [0, 1, 2])
            server.sendall(content)
            answer = server.recv(16)
        if answer != _OTHERWISE:
            code = int(answer or b"70")
            if code < 0:
                signal.signal(-code, signal.SIG_DFL)
                os.kill(os.getpid(), -code)
            sys.exit(code)
    os.execv(interpreter, [interpreter, *arguments])


main(*sys.argv[1:])
