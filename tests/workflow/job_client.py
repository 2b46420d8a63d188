"""`python …` in a job of the tests: `-m wsss …` is asked of the server in `jobs.py`.

Everything else, and what needs another start of Python, is the interpreter itself. Python runs this
without its site packages.
"""

import json
import os
import signal
import socket
import sys

_OTHERWISE = b"again"


def main(address: str, interpreter: str, *arguments: str) -> None:
    """Run to the end of the job, and end as it does."""
    if arguments[:2] == ("-m", "wsss"):
        request = {"arguments": arguments[2:], "cwd": os.getcwd(), "env": dict(os.environ)}
        content = json.dumps(request).encode()
        with socket.socket(socket.AF_UNIX) as server:
            server.connect(address)
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
