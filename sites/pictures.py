"""The sites' pictures, drawn when the sites are built: flat product shapes."""

import logging
import os
from collections.abc import Callable, Iterator
from pathlib import Path

from PIL import Image, ImageDraw

logger = logging.getLogger(__name__)

STATIC_DIR = Path(__file__).parent / "static"
PICTURES_DIR = STATIC_DIR / "pictures"

SIZE_PX = 96
_SCALE = 2  # drawn twice as large and scaled down, which smooths the edges

COLOURS = {
    "red": "#c0392b",
    "blue": "#2f6fb2",
    "green": "#3c8d57",
    "yellow": "#e0b02c",
    "black": "#333a42",
    "white": "#e9e5da",
}

Pen = Callable[[ImageDraw.ImageDraw, str], None]
"""Draws one shape in a colour on a square of 192 units."""


def product_picture(shape: str, colour: str) -> str:
    """Address of a product's picture."""
    return f"/static/pictures/{shape}-{colour}.png"


def _kettle(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.arc((56, 16, 136, 96), 180, 360, "#555b63", 9)
    draw.polygon([(140, 90), (178, 66), (182, 78), (146, 122)], fill)
    draw.polygon([(56, 62), (136, 62), (156, 164), (36, 164)], fill)


def _lamp(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rectangle((91, 90, 101, 164), "#555b63")
    draw.rectangle((60, 160, 132, 172), "#555b63")
    draw.polygon([(66, 24), (126, 24), (156, 100), (36, 100)], fill)


def _mug(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.ellipse((106, 66, 170, 134), outline=fill, width=14)
    draw.rounded_rectangle((38, 44, 130, 160), 14, fill)


def _chair(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rounded_rectangle((50, 20, 66, 172), 4, fill)
    draw.rectangle((50, 96, 144, 114), fill)
    draw.rectangle((130, 100, 144, 172), fill)
    draw.rectangle((58, 34, 84, 84), fill)


def _bag(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.arc((64, 22, 128, 104), 180, 360, "#555b63", 9)
    draw.polygon([(44, 66), (148, 66), (164, 166), (28, 166)], fill)


def _book(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rounded_rectangle((46, 26, 148, 168), 8, fill)
    draw.rectangle((58, 150, 148, 162), "#f7f4ec")
    draw.rectangle((70, 52, 126, 66), "#f7f4ec")


def _clock(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.ellipse((26, 26, 166, 166), fill)
    draw.ellipse((42, 42, 150, 150), "#f7f4ec")
    draw.line([(96, 58), (96, 98), (124, 112)], "#333a42", 7)


def _bottle(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rectangle((80, 18, 112, 40), "#555b63")
    draw.polygon([(84, 40), (108, 40), (130, 76), (62, 76)], fill)
    draw.rounded_rectangle((62, 70, 130, 174), 12, fill)


def _box(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rectangle((34, 66, 158, 166), fill)
    draw.rectangle((28, 44, 164, 74), fill, "#f7f4ec", 3)
    draw.rectangle((80, 96, 112, 108), "#f7f4ec")


def _blanket(draw: ImageDraw.ImageDraw, fill: str) -> None:
    draw.rectangle((30, 48, 162, 148), fill)
    for x in range(34, 162, 14):
        draw.line([(x, 148), (x, 164)], fill, 5)
    for y in (70, 96, 122):
        draw.line([(30, y), (162, y)], "#f7f4ec", 5)


PRODUCT_SHAPES: dict[str, Pen] = {
    "kettle": _kettle,
    "lamp": _lamp,
    "mug": _mug,
    "chair": _chair,
    "bag": _bag,
    "book": _book,
    "clock": _clock,
    "bottle": _bottle,
    "box": _box,
    "blanket": _blanket,
}


def _product(pen: Pen, colour: str) -> Image.Image:
    size_px, background = SIZE_PX * _SCALE, "#f7f4ec" if colour != "white" else "#aab4c0"
    image = Image.new("RGB", (size_px, size_px), background)
    pen(ImageDraw.Draw(image), COLOURS[colour])
    return image


def _pictures() -> Iterator[tuple[str, Callable[[], Image.Image]]]:
    """File names and what draws them."""
    for shape, pen in PRODUCT_SHAPES.items():
        for colour in COLOURS:
            yield f"{shape}-{colour}.png", lambda pen=pen, colour=colour: _product(pen, colour)


def make_pictures() -> int:
    """Draw the pictures that aren't there yet and return how many that were; safe to run in several processes."""
    PICTURES_DIR.mkdir(parents=True, exist_ok=True)
    there = {path.name for path in PICTURES_DIR.iterdir()}
    missing = [(name, draw) for name, draw in _pictures() if name not in there]
    for name, draw in missing:
        partial = PICTURES_DIR / f".{os.getpid()}-{name}"
        draw().resize((SIZE_PX, SIZE_PX), Image.Resampling.BOX).quantize(64).save(partial, "PNG")
        partial.replace(PICTURES_DIR / name)
    if missing:
        logger.info("drew %d pictures into %s", len(missing), PICTURES_DIR)
    return len(missing)
