"""Numbers and values of a record as a card prints them. Pure."""

from __future__ import annotations

from collections.abc import Iterable


def points(share: float, digits: int = 2) -> str:
    return f"{100 * share:z.{digits}f}"


def signed_points(share: float, digits: int = 2) -> str:
    return f"{100 * share:+z.{digits}f}"


def gigabytes(size_bytes: int) -> str:
    """Decimal gigabytes in about three digits."""
    size = size_bytes / 1e9
    digits = 0 if size >= 100 else 1 if size >= 10 else 2
    return f"{size:.{digits}f} GB"


def seconds(value: float) -> str:
    return f"{value:.0f}" if value >= 10 else f"{value:.1f}"


def p_value(p: float) -> str:
    return f"{p:.3f}" if p >= 0.001 else "< 0.001"


def cell_text(value: object) -> str:
    """Text that cannot break the table it stands in."""
    return " ".join(str(value).replace("|", "\\|").split())


def listed(values: Iterable[object]) -> str:
    return ", ".join(f"`{value}`" for value in values)
