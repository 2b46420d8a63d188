"""The base of the project's errors."""

from __future__ import annotations


class WsssError(Exception):
    """Something that a person can mend: the message names the file, what was found, what to do.

    A reader of foreign files raises this or nothing, whatever they hold. Any other exception of a
    reader is a fault of the program; fuzzing looks for those.
    """
