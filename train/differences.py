"""What differs between settings that are kept and settings that are asked for, in words."""

from __future__ import annotations


def first_difference(kept: object, wanted: object, where: str = "") -> str:
    """The first setting that differs, such as ``config.seed is 0 there, 1 was asked for``.

    Args:
        kept, wanted: JSON documents that are not equal.
        where: they stand, in a larger document.
    """
    if isinstance(kept, dict) and isinstance(wanted, dict):
        for key in [*kept, *(key for key in wanted if key not in kept)]:
            if kept.get(key) != wanted.get(key):
                return first_difference(kept.get(key), wanted.get(key), f"{where}.{key}".lstrip("."))
    return f"{where or 'the settings'} is {kept!r} there, {wanted!r} was asked for"
