"""Draws the numbered marks on a screenshot, away from the page, and scales pictures for models."""

import io
from collections.abc import Iterable
from functools import lru_cache

from PIL import Image, ImageDraw, ImageFont

from policy.trajectory import Element

_COLOURS = ("#c0392b", "#1f618d", "#1e8449", "#7d3c98", "#a04000", "#0e6655")
_LABEL_PX = 12
_MODEL_QUALITY = 85


@lru_cache(maxsize=512)
def _label(mark: int) -> Image.Image:
    """The little sign with a mark's number, in the mark's colour."""
    font = ImageFont.load_default(_LABEL_PX)
    left, top, right, bottom = font.getbbox(str(mark))
    sign = Image.new("RGB", (round(right - left) + 5, round(bottom - top) + 5), _colour(mark))
    ImageDraw.Draw(sign).text((2 - left, 2 - top), str(mark), fill="white", font=font)
    return sign


def _colour(mark: int) -> str:
    return _COLOURS[mark % len(_COLOURS)]


def draw_marks(jpeg: bytes, elements: Iterable[Element], quality: int) -> bytes:
    """The screenshot as JPEG with a numbered box around every element."""
    picture = Image.open(io.BytesIO(jpeg)).convert("RGB")
    pen = ImageDraw.Draw(picture)
    for element in elements:
        left, top, width, height = element.box
        pen.rectangle((left, top, left + width - 1, top + height - 1), outline=_colour(element.mark), width=2)
        sign = _label(element.mark)
        above = top - sign.height if top >= sign.height else top
        picture.paste(sign, (max(0, min(left, picture.width - sign.width)), above))
    return _jpeg(picture, quality)


def scaled(jpeg: bytes, longest_px: int) -> bytes:
    """The picture as JPEG with its longest side scaled to that, in its own proportions."""
    picture = Image.open(io.BytesIO(jpeg))
    share = longest_px / max(picture.size)
    size = (max(1, round(picture.width * share)), max(1, round(picture.height * share)))
    picture.draft("RGB", size)  # decodes straight to a smaller size where one is near
    return _jpeg(picture.convert("RGB").resize(size, Image.Resampling.BOX), _MODEL_QUALITY)


def _jpeg(picture: Image.Image, quality: int) -> bytes:
    out = io.BytesIO()
    picture.save(out, "JPEG", quality=quality)
    return out.getvalue()
