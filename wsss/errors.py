"""What all of the project's own errors share."""

from __future__ import annotations


class WsssError(Exception):
    """Something that a person can mend: the message names the file, what was found, what to do.

    Whatever a file from outside holds, its reader raises this or nothing. Any other exception that
    comes out of a reader is a fault of the program; fuzzing looks for those.
    """
