"""Importing open_clip and mmsegmentation does not import what takes longer than torch itself."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from wsss._compat import import_open_clip
from wsss.clip.load import load_clip

HEAVY = ("timm", "torch._dynamo")


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
def test_neither_imports_timm_nor_the_compiler(statement: str, afterwards: str) -> None:
    check = f"import sys; print([name for name in {HEAVY} if name in sys.modules])"
    code = f"{statement}\n{check}\n{afterwards}"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"


@pytest.mark.slow
def test_a_tower_of_timm_can_be_built(tmp_path: Path) -> None:
    vision = {"timm_model_name": "vit_tiny_patch16_224", "timm_model_pretrained": False,
              "timm_pool": "token", "timm_proj": "linear", "image_size": 224}  # fmt: skip
    text = {"context_length": 77, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 1}
    config = {"embed_dim": 32, "vision_cfg": vision, "text_cfg": text}
    (tmp_path / "timm.json").write_text(json.dumps(config))
    clip = load_clip(str(tmp_path / "timm.json"), "random")
    assert isinstance(clip.model.visual, import_open_clip().timm_model.TimmModel)
