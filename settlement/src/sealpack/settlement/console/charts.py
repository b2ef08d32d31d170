"""Charts as shapes: where bars, lines and labels stand, for a template that draws them as SVG.

Source: specs/console.md, "Charts". Columns over time are stacked, rows are by size. No script and no style is
needed: colours are classes of the style sheet, which knows light and dark.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

SERIES = 5  # colours; what is more is drawn together as one more
OTHERS = "all others"
ROWS = 12
_WIDTH, _LEFT, _TOP = 880, 64, 12
_PLOT = 220  # height of the columns
_ROW, _NAME, _VALUE = 26, 240, 70
_UNITS = ((10**12, " T"), (10**9, " G"), (10**6, " M"), (10**3, " k"))


@dataclass(frozen=True, slots=True)
class Box:
    """A bar; `series` is its colour, `words` are what it says when it is pointed at."""

    x: float
    y: float
    width: float
    height: float
    series: int
    words: str


@dataclass(frozen=True, slots=True)
class Label:
    """Text beside an axis or a bar; `anchor` is start, middle or end."""

    x: float
    y: float
    text: str
    anchor: str


@dataclass(frozen=True, slots=True)
class Chart:
    """A drawing of `width` by `height`; `lines` are heights of the grid from `left` to the right edge."""

    title: str
    words: str
    width: int
    height: int
    left: int
    boxes: tuple[Box, ...]
    lines: tuple[float, ...]
    labels: tuple[Label, ...]
    legend: tuple[tuple[int, str], ...] = ()


def short(value: int) -> str:
    """A round number for an axis: 12000 -> "12 k", 2500000 -> "2.5 M"."""
    for size, unit in _UNITS:
        if value >= size:
            whole, rest = divmod(value * 10 // size, 10)
            return f"{whole}.{rest}{unit}" if rest else f"{whole}{unit}"
    return str(value)


def step_of(top: int, steps: int = 4) -> int:
    """1, 2 or 5 times a power of ten, so that at most `steps` of it reach `top`."""
    least = max(1, -(-top // steps))
    power: int = 10 ** (len(str(least)) - 1)
    return power * next(factor for factor in (1, 2, 5, 10) if power * factor >= least)


def columns(
    title: str, times: Sequence[str], ticks: Sequence[str], series: Sequence[tuple[str, Sequence[int]]]
) -> Chart:
    """Stacked columns: for each of `times` an amount per series, the first at the bottom.

    `ticks` are the labels below the columns, empty ones are left out.
    """
    sums = [sum(amounts[n] for _, amounts in series) for n in range(len(times))]
    step = step_of(max(sums, default=0))
    top = max(step, -(-max(sums, default=0) // step) * step)
    base, each = _TOP + _PLOT, (_WIDTH - _LEFT) / max(1, len(times))
    boxes = []
    for n, time in enumerate(times):
        y = float(base)
        for number, (name, amounts) in enumerate(series):
            if amounts[n]:
                height = amounts[n] * _PLOT / top
                y -= height
                words = f"{time}, {name}: {amounts[n]:,}" if name else f"{time}: {amounts[n]:,}"
                width = min(each * 0.72, 64)
                x = _LEFT + n * each + (each - width) / 2
                boxes.append(Box(_round(x), _round(y), _round(width), _round(height), number + 1, words))
    marks = [(value, _round(base - value * _PLOT / top)) for value in range(0, top + 1, step)]
    labels = [Label(_LEFT - 8, y + 4, short(value), "end") for value, y in marks]
    labels += [Label(_round(_LEFT + (n + 0.5) * each), base + 18, tick, "middle")
               for n, tick in enumerate(ticks) if tick]  # fmt: skip
    most = max(range(len(sums)), key=sums.__getitem__, default=0)
    words = f"{sum(sums):,} in all; the most, {sums[most]:,}, on {times[most]}." if sums else "Nothing."
    legend = tuple((n + 1, name) for n, (name, _) in enumerate(series) if name)
    return Chart(title, words, _WIDTH, base + 28, _LEFT, tuple(boxes), tuple(y for _, y in marks),
                 tuple(labels), legend)  # fmt: skip


def rows(title: str, amounts: Sequence[tuple[str, int]]) -> Chart:
    """A bar for each of the first :data:`ROWS` names, and one for what the others come to."""
    shown = [(name, amount) for name, amount in amounts[:ROWS] if amount]
    if others := sum(amount for _, amount in amounts[ROWS:]):
        shown.append((OTHERS, others))
    top = max((amount for _, amount in shown), default=1)
    room = _WIDTH - _NAME - _VALUE
    boxes, labels = [], []
    for n, (name, amount) in enumerate(shown):
        y, width = _TOP + n * _ROW, _round(max(1, amount * room / top))
        boxes.append(Box(_NAME, y, width, _ROW - 8, 6 if name == OTHERS else 1, f"{name}: {amount:,}"))
        labels += [
            Label(_NAME - 8, y + 13, name if len(name) <= 36 else f"{name[:35]}…", "end"),
            Label(_NAME + width + 6, y + 13, short(amount), "start"),
        ]
    words = "; ".join(f"{name} {amount:,}" for name, amount in shown) or "Nothing."
    height = 2 * _TOP + len(shown) * _ROW
    return Chart(title, words, _WIDTH, height, _NAME, tuple(boxes), (), tuple(labels))


def split(amounts: Mapping[str, Sequence[int]]) -> list[tuple[str, Sequence[int]]]:
    """Series by size, the largest first; beyond :data:`SERIES` they are added up as one."""
    ranked = sorted(amounts.items(), key=lambda item: (-sum(item[1]), item[0]))
    rest = [row for _, row in ranked[SERIES:]]
    others = [(OTHERS, [sum(values) for values in zip(*rest, strict=True)])] if rest else []
    return [*ranked[:SERIES], *others]


def _round(value: float) -> float:
    return round(value, 1)
