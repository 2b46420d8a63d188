"""The `wsss` command: the stages' sub-commands and those of the embedded demo, in one."""

from __future__ import annotations

from wsss.cli.app import app, run
from wsss.demo.app import app as demo
from wsss.pipeline.utf8 import ensure_utf8

app.add_typer(demo, name="demo", rich_help_panel="Demo")


def main() -> None:
    """Run the command line; expected errors print one message instead of a traceback."""
    ensure_utf8()
    run(app)


if __name__ == "__main__":
    main()
