"""The `wsss` command: the stages' sub-commands and those of the embedded demo, in one."""

from __future__ import annotations

import atexit
import gc
import os
import signal

# Ctrl-C during these imports, which take a second, ends the process without a traceback.
_ON_INTERRUPT = signal.signal(signal.SIGINT, signal.SIG_DFL)

from wsss._compat.paused_collection import collect_rarely  # noqa: E402
from wsss.cli.app import app, run  # noqa: E402
from wsss.demo.app import app as demo  # noqa: E402
from wsss.pipeline.job import JOB_VARIABLE  # noqa: E402
from wsss.pipeline.utf8 import ensure_utf8  # noqa: E402

signal.signal(signal.SIGINT, _ON_INTERRUPT)
app.add_typer(demo, name="demo", rich_help_panel="Demo")


def main() -> None:
    """Run the command line; expected errors print one message instead of a traceback."""
    if os.environ.get(JOB_VARIABLE):
        collect_rarely()  # until `wsss.cli.options.stage_values`, when the stage is imported
    # The end would look through all objects of torch, for most of a second.
    atexit.register(gc.freeze)
    ensure_utf8()
    run(app)


if __name__ == "__main__":
    main()
