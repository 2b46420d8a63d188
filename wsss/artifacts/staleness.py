"""How an artifact was made, compared with how it would be made now."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from wsss.artifacts.errors import ArtifactError
from wsss.artifacts.provenance import Provenance
from wsss.config.base import MIXED, UPPER_BOUND, LearnedFrom

_LONGEST = 80  # characters of a value in a message


def refuse_other_supervision(path: Path, source: Provenance, supervision: LearnedFrom) -> None:
    """Refuse to make something weakly supervised from pixel labels, or an upper bound without.

    What is of mixed supervision may be made from what is weakly supervised.

    Args:
        supervision: of what is to be made from it.

    Raises:
        ArtifactError: the artifact is of the other kind.
    """
    if source.supervision in (supervision, "tags" if supervision == "mixed" else supervision):
        return
    if source.supervision == "mixed":
        this = UPPER_BOUND if supervision == "masks" else "weakly supervised"
        raise ArtifactError(
            f"{path}: was made with retrain.corrected, {MIXED}, and this run is {this}: the two do "
            "not mix; pass what a run without it made, or set retrain.corrected"
        )
    if supervision != "masks":
        this = MIXED if supervision == "mixed" else "weakly supervised"
        raise ArtifactError(
            f"{path}: was made with supervision: masks, {UPPER_BOUND}, and this run is {this} "
            "(supervision: tags): the two do not mix; pass what a run with tags made, or set "
            "supervision: masks"
        )
    raise ArtifactError(
        f"{path}: was made without pixel labels, and this run is {UPPER_BOUND} (supervision: "
        "masks): the two do not mix; pass what such a run made, or set supervision: tags"
    )


def setting_differences(stored: Provenance, expected: Provenance) -> Iterator[str]:
    """Settings and weight files that both name, and that differ, as sentences.

    One may name a whole section and the other a part of it: what both hold is compared.

    Args:
        expected: what the configuration gives now; of the same stage or of another.
    """
    for key, value in stored.config.items():
        for other, right in expected.config.items():
            yield from _compare_keys((key, value), (other, right))
    for key in stored.files.keys() & expected.files.keys():
        if stored.files[key] != expected.files[key]:
            yield (
                f"made with another file as {key} (sha256 {stored.files[key][:12]}, now "
                f"{expected.files[key][:12]})"
            )


def digest_differences(
    stored: Mapping[str, str], expected: Mapping[str, str], what: str
) -> Iterator[str]:
    """Digests of the same name that differ, as sentences.

    Args:
        stored: by name.
        expected: by name.
        what: they are of, e.g. ``weights``.
    """
    for name in sorted(stored.keys() & expected.keys()):
        if stored[name] != expected[name]:
            yield (
                f"made with other {what} {name!r} (digest {stored[name][:12]}, now "
                f"{expected[name][:12]})"
            )


def seed_difference(stored: int, expected: int) -> Iterator[str]:
    """The same for the seed."""
    if stored != expected:
        yield f"made with seed {stored}, the configuration says {expected}"


def _compare_keys(stored: tuple[str, Any], expected: tuple[str, Any]) -> Iterator[str]:
    (key, value), (other, right) = stored, expected
    if key == other:
        pair = key, value, right
    elif other.startswith(f"{key}."):
        pair = key, value, _around(right, other.removeprefix(f"{key}."))
    elif key.startswith(f"{other}."):
        pair = other, _around(value, key.removeprefix(f"{other}.")), right
    else:
        return
    for name, before, now in differing_values(*pair):
        yield f"made with {name} {before}, the configuration says {now}"


def _around(value: Any, path: str) -> Any:
    """A value in the sections that its path names."""
    for name in reversed(path.split(".")):
        value = {name: value}
    return value


def differing_values(key: str, value: Any, right: Any) -> Iterator[tuple[str, str, str]]:
    """Each key below ``key`` whose values differ, with both as texts.

    Of two sections, what both have is compared: a key that one lacks changes nothing there.
    """
    if isinstance(value, Mapping) and isinstance(right, Mapping):
        for name in [name for name in value if name in right]:
            yield from differing_values(f"{key}.{name}", value[name], right[name])
    elif value != right:
        yield key, _text(value), _text(right)


def _text(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]} …"
