"""Say what to install where a package or a system library is missing.

What breaks: the base installation has no segmenters (`pip install 'wsss[segment]'`). Their packages
ask for opencv-python, which loads libGL and glib when it is imported. opencv-python-headless, which
`wsss` itself asks for, does not. Delete the second half when mmsegmentation takes that build.
"""

from __future__ import annotations

import importlib.util

from wsss.errors import WsssError

SEGMENTERS = ("mmseg", "mmcv", "mmengine")


class MissingPackageError(WsssError, ImportError):
    """A package or a system library is missing; the message says how to install it."""


def require(*packages: str) -> None:
    """Refuse to go on without packages of the segmenters.

    Args:
        packages: of `SEGMENTERS`.

    Raises:
        MissingPackageError: one is not installed.
    """
    if missing := [name for name in packages if importlib.util.find_spec(name) is None]:
        raise MissingPackageError(
            f"not installed: {', '.join(missing)}, for segmenters and checkpoints of mmengine; "
            "pip install 'wsss[segment]', or end with the pseudo masks (retrain.enabled: false)"
        )


def explain_import(error: ImportError) -> str:
    """What to do about a package that does not import; empty where that is not known."""
    if not any(library in str(error) for library in ("libGL", "libgthread")):
        return ""
    return (
        f"OpenCV does not start ({error}); install the library (Debian and Ubuntu: apt-get install "
        "libgl1 libglib2.0-0), or take the build that needs none: pip uninstall opencv-python, "
        "then pip install --force-reinstall --no-deps opencv-python-headless"
    )
