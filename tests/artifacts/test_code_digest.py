"""The code digest: it covers what a stage imports, and nothing else."""

from __future__ import annotations

import pytest

from wsss.artifacts.code_digest import code_digest, imported_modules


def test_imports_are_followed_through_the_package() -> None:
    found = imported_modules(["wsss.artifacts.item_cache"])
    assert {
        "wsss",
        "wsss.artifacts",
        "wsss.artifacts.item_cache",
        "wsss.artifacts.shard",
        "wsss.artifacts.digest",
    } <= found
    assert "wsss.artifacts.checkpoint" not in found


def test_configuration_is_left_out_because_its_values_are_parameters() -> None:
    assert not any(
        name.startswith("wsss.config") for name in imported_modules(["wsss.artifacts.provenance"])
    )


def test_digest_is_stable_and_differs_between_stages() -> None:
    assert code_digest(["wsss.artifacts.shard"]) == code_digest(["wsss.artifacts.shard"])
    assert code_digest(["wsss.artifacts.shard"]) != code_digest(["wsss.artifacts.item_cache"])


def test_unknown_module_is_an_error() -> None:
    with pytest.raises(ValueError, match="no such module"):
        code_digest(["wsss.nowhere"])
