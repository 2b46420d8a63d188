"""The rows of `benchmarks.ablation`: the changes to the preset of a method."""

from __future__ import annotations

from typing import Any

Rows = dict[str, dict[str, Any]]


def _weclip(**changes: Any) -> dict[str, Any]:
    return {"refine": {"weclip": changes}}


def _weakclip(**changes: Any) -> dict[str, Any]:
    return {"refine": {"weakclip": changes}}


def _excel(**changes: Any) -> dict[str, Any]:
    return {"refine": {"excel": changes}}


def _affinity(**changes: Any) -> dict[str, Any]:
    return {"cams": {"affinity": changes}}


def _averages(scales: list[float], average: str) -> dict[str, Any]:
    return {"infer": {"scales": scales, "average": average}}


def _seeds(source: str) -> dict[str, Any]:
    return {"cams": {"source": source}, "seeds": {"values": [0.4, 0.6]}}


_WECLIP: Rows = {
    "published": {"variant": "published"},
    "corrected": {},
    "all tags on every crop": _weclip(crop_visibility="crop"),
    "tags gated by their probability": _weclip(crop_visibility="gated"),
    "the image's CAM, cut": _weclip(crop_visibility="image"),
    "padding labelled": _weclip(padding="labelled"),
    "no ignore band": _weclip(ignore_band=None),
    "raw affinity": _weclip(affinity="raw"),
    "signed distance": _weclip(block_distance="signed"),
    "no RFM": _weclip(rfm_start=1_000_000),
    "class distributions joined": _affinity(kind="joined"),
    "feature cosines joined": _affinity(kind="joined", joined_with="feature"),
    "ImageNet normalisation": {"clip": {"normalization": "imagenet"}},
    "floored grid": {"infer": {"grid": "floored"}},
    "dropout when evaluating": {"infer": {"dropout": "on"}},
    "scores of the propagated CAM": {"infer": {"scores": "cam"}},
}
_WEAKCLIP: Rows = {
    "published": {"variant": "published"},
    "corrected": {},
    "CLIP trained by the leak": _weakclip(zero_lr="leak"),
    "adapter not trained": _weakclip(adapter_lr=0.0),
    "co-attention not chained": _weakclip(co_attention="unchained"),
    "class embedding twice": _weakclip(class_token="twice"),
    "positions resized twice": _weakclip(positions="twice"),
    "stochastic depth": _weakclip(drop_path=0.1),
    "prompts start at deviation 1": _weakclip(prompt_std=1.0),
    "all labels in losses and CRF": _weakclip(tags_in_losses="ignored"),
    "other labels out of the softmax": _weakclip(tags_in_losses="masked"),
    "all labels in the masks": _weakclip(tags_in_masks="ignored"),
    "CRF deviations in cells": _weakclip(boundary={"sigma_unit": "cells"}),
    "CRF image sampled": _weakclip(boundary={"image": "sampled"}),
    "crops not smoothed": _weakclip(crop_scaling="opencv"),
    "small photos in the corner": _weakclip(small_photos="corner"),
    "padding in the boundary loss": _weakclip(padding="labelled"),
    "auxiliary mean over all pixels": _weakclip(auxiliary_mean="all"),
    "ImageNet normalisation": {"clip": {"normalization": "imagenet"}},
    "floored grid": {"infer": {"grid": "floored"}},
    "sliding window": {"infer": {"window": "crop"}},  # of the crop's side, every two thirds of it
    "no boundary loss": _weakclip(boundary_weight=0.0),
    "no auxiliary loss": _weakclip(auxiliary_weight=0.0),
    "1200 steps": {"refine": {"train": {"iterations": 1200}}},
    "seeds from Grad-CAM and affinity": _seeds("grad_cam"),
    "seeds from patch-text CAMs": _seeds("patch_text"),
    "seeds without a band": {"seeds": {"values": None}},  # the mean of the preset's values
}
_EXCEL: Rows = {
    "published": {"variant": "published", "cams": {"patch_text": {"tse": {"form": "topk"}}}},
    "corrected": {},
    "features aliased": _excel(features="aliased"),
    "mean over the batch": _excel(relation_mean="batch"),
    "dropout in the relation": _excel(relation_dropout="on"),
    "signed distance": _excel(block_distance="signed"),
    "no LVC": _excel(lvc_start=1_000_000),
    "self-training in the last quarter": _excel(self_training_start="three quarters"),
    "all tags on every crop": _excel(crop_visibility="crop"),
    "tags gated by their probability": _excel(crop_visibility="gated"),
    "the image's CAM, cut": _excel(crop_visibility="image"),
    "padding labelled": _excel(padding="labelled"),
    "no ignore band": _excel(ignore_band=None),
    "ImageNet normalisation": {"clip": {"normalization": "imagenet"}},
    "extremes of all tokens": {"cams": {"patch_text": {"min_max_over": "tokens"}}},
    "attention mixed": {"cams": {"patch_text": {"attention": "mixed"}}},
    "last block calibrated": {"cams": {"patch_text": {"blocks": 1}}},
    "with TSE": {"cams": {"patch_text": {"tse": {"form": "topk"}}}},
    "images squeezed": {"clip": {"keep_ratio": False}},
    "floored grid": {"infer": {"grid": "floored"}},
    "two scales, averaged on the grid": _averages([1.0, 0.75], "grid"),
    "two scales, averaged at the image": _averages([1.0, 0.75], "image"),
    "four scales, averaged on the grid": _averages([1.0, 0.7, 1.2, 1.5], "grid"),
    "four scales, averaged at the image": _averages([1.0, 0.7, 1.2, 1.5], "image"),
    "scores of the dynamic CAM": {"infer": {"scores": "cam"}},
}
ROWS: dict[str, Rows] = {"weclip": _WECLIP, "weakclip": _WEAKCLIP, "excel": _EXCEL}
"""By method; every row but the first two reverts or changes one thing."""
