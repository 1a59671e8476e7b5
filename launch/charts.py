"""Curves and bars of a run as inline SVG: no script, colours from the page's style sheet, a tooltip on every mark.

In: numbers by round. Out: markup that is safe to put into a page.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

WIDTH, HEIGHT = 460, 240  # of the drawing, in its own units; the page scales it
LEFT, RIGHT, TOP, BOTTOM = 54, 10, 12, 28  # margins, with room for the axes' numbers
MAX_BAR_WIDTH = 46
MAX_ROUND_LABELS = 12
NUM_HUES = 8  # in the style sheet


@dataclass(frozen=True, slots=True)
class Point:
    """A measured share at a round, with its 95 % interval; None: no interval is known."""

    round: int
    share: float
    low: float | None = None
    high: float | None = None
    n: int | None = None
    """Episodes behind the share."""


@dataclass(frozen=True, slots=True)
class Series:
    """One curve; rounds without a measurement have no point."""

    name: str
    points: tuple[Point, ...]


@dataclass(frozen=True, slots=True)
class _Plane:
    """Where rounds and values lie in the drawing."""

    rounds: Sequence[int]
    top_value: float

    def x(self, round: int) -> float:
        """Middle of a round's column."""
        return LEFT + (self.rounds.index(round) + 0.5) * self.column_width

    def y(self, value: float) -> float:
        """Height of a value."""
        return HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * value / self.top_value

    @property
    def column_width(self) -> float:
        """What every round has."""
        return (WIDTH - LEFT - RIGHT) / max(1, len(self.rounds))


def curves(title: str, series: Sequence[Series]) -> Markup:
    """Shares by round as curves with error bars, the value axis up to the highest bar; empty without points."""
    points = [point for line in series for point in line.points]
    if not points:
        return Markup()
    top = min(1.0, nice_ticks(max(point.high or point.share for point in points))[-1])
    plane = _Plane(sorted({point.round for point in points}), top)
    nudge = min(6.0, plane.column_width / (2 * len(series)))  # so that error bars don't hide each other
    lines = [_curve(line, plane, index, (index - (len(series) - 1) / 2) * nudge) for index, line in enumerate(series)]
    axes = _axes(plane, nice_ticks(top), lambda value: f"{100 * value:g} %")
    return _figure(title, [line.name for line in series], Markup().join([axes, *lines]))


def _curve(series: Series, plane: _Plane, index: int, shift: float) -> Markup:
    places = [(plane.x(point.round) + shift, plane.y(point.share), point) for point in series.points]
    path = " ".join(f"{x:.1f},{y:.1f}" for x, y, _ in places)
    marks = [_mark(x, y, point, plane, series.name) for x, y, point in places]
    line = Markup('<polyline points="{}"/>').format(path)
    return Markup('<g class="curve {}">{}{}</g>').format(_colour(index, series.name), line, Markup().join(marks))


def _mark(x: float, y: float, point: Point, plane: _Plane, name: str) -> Markup:
    text = f"{name}, round {point.round}: {100 * point.share:.1f} %"
    bar = Markup()
    if point.low is not None and point.high is not None:
        text += f" (95 % interval {100 * point.low:.1f} to {100 * point.high:.1f} %, n = {point.n})"
        low, high = f"{plane.y(point.low):.1f}", f"{plane.y(point.high):.1f}"
        left, right = f"{x - 3:.1f}", f"{x + 3:.1f}"
        path = f"M{x:.1f} {low}V{high}M{left} {low}H{right}M{left} {high}H{right}"
        bar = Markup('<path class="interval" d="{}"/>').format(path)
    dot = Markup('<circle cx="{:.1f}" cy="{:.1f}" r="3.5"/>').format(x, y)
    return Markup("<g>{}{}<title>{}</title></g>").format(bar, dot, text)


def bars(title: str, rows: Mapping[int, Mapping[str, float]], unit: str = "") -> Markup:
    """Parts of a whole by round as stacked bars, in the order of the rows' parts; empty without any."""
    parts = dict.fromkeys(name for row in rows.values() for name in row)
    names = [name for name in parts if any(row.get(name) for row in rows.values())]
    if not names:
        return Markup()
    ticks = nice_ticks(max(sum(row.values()) for row in rows.values()))
    plane = _Plane(list(rows), ticks[-1])
    blocks = [block for round, row in rows.items() for block in _stack(round, row, names, plane, unit)]
    axes = _axes(plane, ticks, lambda value: f"{value:g}{unit}")
    return _figure(title, names, Markup().join([axes, *blocks]))


def _stack(round: int, row: Mapping[str, float], names: Sequence[str], plane: _Plane, unit: str) -> Iterator[Markup]:
    width = min(MAX_BAR_WIDTH, plane.column_width * 0.7)
    below = 0.0
    for index, name in enumerate(names):
        if value := row.get(name, 0):
            top, bottom = plane.y(below + value), plane.y(below)
            rect = Markup('<rect class="{}" x="{:.1f}" y="{:.1f}" width="{:.1f}" height="{:.1f}">{}</rect>')
            tip = Markup("<title>{}</title>").format(f"round {round}, {name.replace('_', ' ')}: {value:,.0f}{unit}")
            yield rect.format(_colour(index, name), plane.x(round) - width / 2, top, width, bottom - top, tip)
            below += value


def _axes(plane: _Plane, ticks: Sequence[float], label: Callable[[float], str]) -> Markup:
    parts = []
    for value in ticks:
        y = f"{plane.y(value):.1f}"
        parts.append(Markup('<path class="grid" d="M{} {}H{}"/>').format(LEFT, y, WIDTH - RIGHT))
        parts.append(Markup('<text class="value" x="{}" y="{}">{}</text>').format(LEFT - 6, y, label(value)))
    every = math.ceil(len(plane.rounds) / MAX_ROUND_LABELS)
    for round in plane.rounds[::every]:
        parts.append(
            Markup('<text class="round" x="{:.1f}" y="{}">{}</text>').format(plane.x(round), HEIGHT - 8, round)
        )
    return Markup().join(parts)


def _figure(title: str, names: Sequence[str], drawing: Markup) -> Markup:
    entry = Markup('<li class="{}">{}</li>')
    words = [name.replace("_", " ") for name in names]
    legend = Markup().join(entry.format(_colour(index, name), name) for index, name in enumerate(words))
    return Markup(
        '<figure><figcaption>{}</figcaption><ul class="legend">{}</ul>'
        '<svg viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg></figure>'
    ).format(title, legend, WIDTH, HEIGHT, title, drawing)


def _colour(index: int, name: str) -> str:
    """Classes that the style sheet colours: by place, and by name where a name has a colour of its own."""
    return f"hue-{index % NUM_HUES} is-{name.replace('_', '-').replace(' ', '-')}"


def nice_ticks(top: float) -> list[float]:
    """Round numbers from 0 to the first at or above `top`, three to six of them: nice_ticks(7) == [0, 2, 4, 6, 8]."""
    rough = (top or 1) / 4
    magnitude = 10.0 ** math.floor(math.log10(rough))
    step = next(size * magnitude for size in (1, 2, 2.5, 5, 10) if size * magnitude >= rough * 0.999)
    return [round(step * index, 10) for index in range(math.ceil(top / step - 1e-9) + 1)] if top else [0.0, 1.0]
