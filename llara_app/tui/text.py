"""Fitting titles and numbers into cells of a terminal."""

from __future__ import annotations

from datetime import UTC, datetime

from rich.cells import cell_len, set_cell_size
from textual.content import Content

_EIGHTHS = " ▏▎▍▌▋▊▉█"


def fit(text: str, width: int) -> str:
    """`text` cut or padded to exactly `width` cells; double-width characters count as two."""
    if width <= 0:
        return ""
    if cell_len(text) > width:
        return set_cell_size(set_cell_size(text, width - 1).rstrip() + "…", width)
    return set_cell_size(text, width)


def title(text: str, width: int) -> str:
    """A title in exactly `width` cells, without control and direction marks."""
    # Not before the first paint: it brings pydantic along.
    from llara_app.prompts import prompt_title

    return fit(prompt_title(text), width)


def inert(text: str) -> Content:
    """Others' words as the title of a pane, without control and direction marks.

    Textual reads a plain string there as markup: a name such as ``[/]`` would end the app, ``[REC]`` would not be
    seen.
    """
    from llara_app.prompts import prompt_title

    return Content(prompt_title(text))


def bar(share: float, width: int) -> str:
    """A horizontal bar, `share` of `width` cells long, in eighths of a cell."""
    eighths = round(max(0.0, min(1.0, share)) * width * 8)
    whole, rest = divmod(eighths, 8)
    return ("█" * whole + (_EIGHTHS[rest] if rest else "")).ljust(width)


def diverging_bar(value: float, largest: float, width: int) -> tuple[str, str]:
    """A bar from the middle of `width` cells: to the right for positive values, to the left for negative ones.

    Returns:
        the left and the right half.
    """
    half = width // 2
    share = min(1.0, abs(value) / largest) if largest else 0.0
    cells = round(share * half)
    if value and not cells:
        cells = 1 if share > 0.02 else 0
    if value < 0:
        return ("█" * cells).rjust(half), " " * (width - half)
    return " " * half, ("█" * cells).ljust(width - half)


def percent(probability: float) -> str:
    """A probability in five cells."""
    if probability >= 0.9995:
        return " 100%"
    if probability < 0.0005:
        return " <.1%"
    return f"{100 * probability:4.1f}%" if probability < 0.9995 else " 100%"


def shown_milliseconds(value: float) -> str:
    """A short time."""
    return f"{value:.0f} ms"


def date(time: int | None) -> str:
    """A day, or blank where the time is unknown or no calendar's."""
    if time is None:
        return ""
    try:
        return datetime.fromtimestamp(time, UTC).strftime("%Y-%m-%d")
    except (OverflowError, OSError, ValueError):
        return ""


def moment(iso: str) -> str:
    """A time in ISO 8601 to the minute, as a person reads it."""
    return iso[:16].replace("T", " ")


def duration(seconds: float | None) -> str:
    """A time to wait, as a person says it."""
    if seconds is None:
        return "–"
    minutes, rest = divmod(max(0, round(seconds)), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def size(num_bytes: int) -> str:
    """An amount of memory."""
    value = float(num_bytes)
    for unit in ("B", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
