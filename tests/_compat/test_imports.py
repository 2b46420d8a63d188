"""Importing open_clip and mmsegmentation does not import what takes longer than torch itself."""

import subprocess
import sys

import pytest

HEAVY = ("timm", "transformers", "torch._dynamo")


CLIP = "from wsss._compat import import_open_clip; import_open_clip()"
PLACEHOLDER = """
from torchvision.ops import roi_align
answer = roi_align.__globals__["is_compile_supported"]("cpu")
from torch._dynamo.utils import is_compile_supported
assert answer == is_compile_supported("cpu")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "afterwards"), [(CLIP, PLACEHOLDER), ("import wsss.retrain.mm", "")]
)
def test_neither_imports_what_is_slow(statement: str, afterwards: str) -> None:
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    code = f"{statement}\n{check}\n{afterwards}"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
