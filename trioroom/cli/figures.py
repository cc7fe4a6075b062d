"""Numbers as people read them in a terminal. Each is short enough for its column, however large it gets."""

from __future__ import annotations

NOTHING = "-"  # not known, or not yet
_SCALES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))
_BYTES = ("B", "KiB", "MiB", "GiB", "TiB")


def _three(value: float) -> str:
    """Three digits that count, so that what changes each second keeps its width."""
    return f"{value:.{0 if value >= 99.95 else 1 if value >= 9.995 else 2}f}"


def count(value: float | None) -> str:
    """A whole number: 9,999 as it is, 12.3k from ten thousand on."""
    if value is None:
        return NOTHING
    if value < 9_999.5:
        return f"{value:,.0f}"
    scale, letter = next((scale, letter) for scale, letter in _SCALES if value >= scale * 0.9995)
    return _three(value / scale) + letter


def rate(value: float | None) -> str:
    """What happens in a second."""
    if value is None:
        return NOTHING
    if 0 < value < 9.95:
        return f"{value:.1f}" if value >= 0.05 else "<0.1"
    return count(value)


def size(value: float | None) -> str:
    """Bytes."""
    if value is None:
        return NOTHING
    power = 0
    while value >= 1_023.5 and power < len(_BYTES) - 1:
        value /= 1024
        power += 1
    return f"{_three(value) if power else f'{value:.0f}'} {_BYTES[power]}"


def lag(value: float | None) -> str:
    """A short time."""
    if value is None:
        return NOTHING
    if value < 0.9995:
        milliseconds = value * 1000
        return f"{milliseconds:.1f} ms" if 0.05 <= milliseconds < 9.95 else f"{milliseconds:.0f} ms"
    return f"{value:.1f} s" if value < 99.95 else duration(value)


def duration(value: float | None) -> str:
    """A long time: its two largest units."""
    if value is None:
        return NOTHING
    minutes, seconds = divmod(int(value), 60)
    hours, minutes = divmod(minutes, 60)
    days, hours = divmod(hours, 24)
    parts = ((days, "d"), (hours, "h"), (minutes, "m"), (seconds, "s"))
    first = next((place for place, (number, _) in enumerate(parts) if number), len(parts) - 1)
    return " ".join(f"{number}{unit}" for number, unit in parts[first : first + 2])


def percent(share: float | None) -> str:
    """A share."""
    if share is None:
        return NOTHING
    return f"{share * 100:.{1 if 0 < share < 0.0995 else 0}f} %"


def of(value: float | None, bound: float | None) -> str:
    """So many of so many, where there is a bound."""
    return count(value) if bound is None else f"{count(value)}/{count(bound)}"
