"""Importing open_clip and mmsegmentation does not import what takes longer than torch itself."""

import subprocess
import sys

import pytest

HEAVY = ("timm", "transformers", "torch._dynamo", "torch.distributed.fsdp", "sympy",
         "scipy.ndimage", "scipy.optimize", "scipy.interpolate",
         "open_clip.push_to_hf_hub", "open_clip.tokenizer")  # fmt: skip

PLACEHOLDERS = """
from torchvision.ops import roi_align
answer = roi_align.__globals__["is_compile_supported"]("cpu")
from torch._dynamo.utils import is_compile_supported
assert answer == is_compile_supported("cpu")
import open_clip
tokens = open_clip.get_tokenizer("ViT-B-32")(["a cat"])
upload = open_clip.push_to_hf_hub
try:
    upload()
except TypeError as error:
    assert "missing" in str(error), error
assert "open_clip.push_to_hf_hub" in sys.modules
from open_clip.tokenizer import DEFAULT_CONTEXT_LENGTH, SimpleTokenizer
assert tokens.equal(SimpleTokenizer()(["a cat"]))
assert open_clip.factory.DEFAULT_CONTEXT_LENGTH == DEFAULT_CONTEXT_LENGTH
"""
SEGMENTERS = """
from mmseg.models.assigners.hungarian_assigner import linear_sum_assignment
rows, columns = linear_sum_assignment([[1, 0], [0, 1]])
assert columns.tolist() == [1, 0]
from scipy.optimize import linear_sum_assignment as imported
assert type(imported) is not type(linear_sum_assignment)
"""


LOADED = """
from wsss.clip.load import load_clip
load_clip("wsss/demo/weights/demo-vit-p8.json", "wsss/demo/weights/demo-vit-p8.safetensors")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("statement", "afterwards"),
    [(LOADED, PLACEHOLDERS), ("import wsss.retrain.mm", SEGMENTERS)],
)
def test_neither_imports_what_is_slow(statement: str, afterwards: str) -> None:
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    code = f"{statement}\n{check}\n{afterwards}"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


ASKED = """
import os, torch
asked = []
torch.cuda.is_available = lambda: asked.append(os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"))
import wsss.retrain.train, wsss.retrain.predict
print(set(asked), os.environ.get("PYTORCH_NVML_BASED_CUDA_CHECK"))
"""


@pytest.mark.slow
def test_segmenters_are_imported_without_starting_cuda() -> None:
    """Its driver would read CUDA_VISIBLE_DEVICES before the job has chosen its GPU."""
    done = subprocess.run([sys.executable, "-c", ASKED], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "{'1'} None"
