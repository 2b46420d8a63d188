"""Text and names of files are UTF-8, whatever the locale says."""

from __future__ import annotations

import codecs
import locale
import os
import sys


def ensure_utf8() -> None:
    """Start this program again in Python's UTF-8 mode if the locale has another encoding.

    Python takes the encoding of file names and of redirected output from the locale, except for C
    and POSIX. In a Latin-1 locale a photo ``für.jpg`` would not be the one that a table of tags
    names. The process keeps its number. A terminal is still written to in its own encoding.
    """
    encoding = codecs.lookup(locale.getencoding()).name
    if codecs.lookup(sys.getfilesystemencoding()).name == "utf-8":
        if encoding not in ("utf-8", "ascii"):
            for stream in (sys.stdout, sys.stderr):
                if stream.isatty():
                    stream.reconfigure(encoding=encoding, errors="backslashreplace")  # type: ignore[union-attr]
        return
    variables = map(os.environ.get, ("LC_ALL", "LC_CTYPE", "LANG"))
    print(
        f"the locale {next(filter(None, variables), '')} has the encoding {encoding}; text and "
        "names of files are read and written as UTF-8 all the same (as with LC_ALL=C.UTF-8)",
        file=sys.stderr,
        flush=True,
    )
    os.environ["PYTHONUTF8"] = "1"  # for what this process starts
    os.execv(sys.executable, [sys.executable, "-X", "utf8", *sys.orig_argv[1:]])
