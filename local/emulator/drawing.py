"""Abstract images that show their prompt. The same prompt, index and size always give the same file."""

import colorsys
import functools
import io
import math
import random
import re
import textwrap
import unicodedata
from dataclasses import dataclass, replace
from typing import Literal

from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import putchunk

_MAX_PADDED_SIZE = 256 * 1024 * 1024
_CHUNK_OVERHEAD = 12  # bytes of a PNG chunk without content, so also of IEND, the last chunk of a file
_OVERSAMPLING = 2  # Pillow does not smooth the edges of shapes
_TILES = 8  # along the shorter side
_SMALLEST_LETTER = 10  # pixels
_LONGEST_TEXT = 2_000
_LINE_HEIGHT = 1.3  # in letter sizes
_NOT_IN_FONT = re.compile(
    "[^ -~\u00a9\u00ab\u00b0\u00b1\u00b7\u00bb\u2018\u2019\u201c\u201d\u2026\u2039\u203a\u2044\u2122]"
)
_MISSING = "\uffff"  # the font has no such character, and draws its sign for that: a crossed box
_ALIKE = str.maketrans(
    {"\u201a": "\u2018", "\u201e": "\u201c", "\u2022": "\u00b7", "\u2212": "-", "\u2032": "'", "\u2033": '"'}
)


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """What one image of a response shows, and its file format."""

    prompt: str
    width: int = 1024
    height: int = 1024
    index: int = 0
    count: int = 1
    format: Literal["PNG", "JPEG", "WEBP"] = "PNG"
    quality: int = 85  # JPEG and WebP, 0 to 100
    transparent: bool = False  # cuts the corners out; PNG only
    padded_size: int = 0  # bytes; a smaller PNG grows to this size

    def encode(self) -> bytes:
        """Draw the image and return the file. CPU-bound: call it in a thread."""
        file = io.BytesIO(_encode(replace(self, padded_size=0)))
        padding = min(self.padded_size, _MAX_PADDED_SIZE) - len(file.getvalue()) - _CHUNK_OVERHEAD
        if self.format == "PNG" and padding >= 0:
            file.seek(-_CHUNK_OVERHEAD, io.SEEK_END)
            putchunk(file, b"paDd", bytes(padding))  # a private chunk: readers skip it
            putchunk(file, b"IEND", b"")
        return file.getvalue()

    def draw(self) -> Image.Image:
        """Draw the tiles, then the prompt on a dark panel."""
        image = _tiles(random.Random(f"{self.index} {self.prompt}"), self.width, self.height)
        _write(image, self.prompt, f"{self.width}x{self.height}   {self.index + 1} of {self.count}   local.emulator")
        return image


@functools.lru_cache(maxsize=8)
def _encode(drawing: Drawing) -> bytes:
    """The file without padding. Cached: load tests ask for the same image again and again."""
    image, file = drawing.draw(), io.BytesIO()
    if drawing.transparent:
        image.putalpha(_rounded_mask(image.size))
    image.save(file, drawing.format, quality=drawing.quality, compress_level=1)
    return file.getvalue()


def _tiles(dice: random.Random, width: int, height: int) -> Image.Image:
    """Draw quarter discs in a random palette."""
    hue, turn = dice.random(), dice.choice((0.03, 0.06, 0.1, 0.5))
    colours = [colorsys.hls_to_rgb(hue + turn * step, 0.3 + 0.1 * step, 0.55) for step in range(6)]
    palette = [(round(255 * red), round(255 * green), round(255 * blue)) for red, green, blue in colours]
    image = Image.new("RGB", (width * _OVERSAMPLING, height * _OVERSAMPLING))
    pen = ImageDraw.Draw(image)
    side = math.ceil(min(image.size) / _TILES)
    for y in range(0, image.height, side):
        for x in range(0, image.width, side):
            square, disc = dice.sample(palette, 2)
            angle, right, down = dice.choice(((0, 0, 0), (90, 1, 0), (180, 1, 1), (270, 0, 1)))
            centre_x, centre_y = x + right * side, y + down * side
            pen.rectangle((x, y, x + side, y + side), square)
            pen.pieslice((centre_x - side, centre_y - side, centre_x + side, centre_y + side), angle, angle + 90, disc)
    return image.reduce(_OVERSAMPLING)


def _write(image: Image.Image, prompt: str, footer: str) -> None:
    """Write the prompt as large as it fits. Text too long for the smallest letters ends in "…"."""
    short_side = min(image.size)
    margin = short_side // 28
    small = max(_SMALLEST_LETTER, short_side // 48)
    width, height = image.width - 4 * margin, image.height - 5 * margin - small
    text = printable(prompt)
    length = max(1.0, _font(100).getlength(text) / 100)  # in letter sizes
    fitting = int(math.sqrt(0.8 * width * height / (length * _LINE_HEIGHT)))  # 0.8: lines are not filled to the end
    letter = max(_SMALLEST_LETTER, min(short_side // 17, fitting))
    columns = int(len(text) * width / (length * letter))
    lines = _wrap(text, columns, _font(letter), width, int(height / (letter * _LINE_HEIGHT)))
    bottom = image.height - margin
    top = bottom - round(len(lines) * letter * _LINE_HEIGHT) - small - 3 * margin
    pen = ImageDraw.Draw(image, "RGBA")
    pen.rounded_rectangle((margin, top, image.width - margin, bottom), margin // 2, (14, 16, 26, 225))
    for number, line in enumerate(lines):
        pen.text((2 * margin, top + margin + number * letter * _LINE_HEIGHT), line, "white", _font(letter))
    pen.text((2 * margin, bottom - margin - small), footer, (205, 210, 220), _font(small))


def printable(prompt: str) -> str:
    """Return the text in characters that the built-in font has.

    Letters lose their accents, dashes become hyphens, and a crossed box stands for every other character.
    """
    text = "".join(map(_alike, " ".join(prompt.split()).translate(_ALIKE)))
    return _NOT_IN_FONT.sub(_MISSING, text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + "…")


def _alike(letter: str) -> str:
    match unicodedata.category(letter):
        case "Pd":  # every dash
            return "-"
        case "Mn" | "Me" | "Cf":  # combines with its neighbours, as the parts of an emoji do: no sign of its own
            return ""
        case _:
            return unicodedata.normalize("NFD", letter)[0]


def _wrap(text: str, columns: int, font: ImageFont.FreeTypeFont, width: int, most: int) -> list[str]:
    """Break lines after ``columns`` characters, or fewer if the widest line exceeds ``width`` pixels."""
    lines = textwrap.wrap(text, max(2, columns), max_lines=most, placeholder="…") or [""]
    widest = max(map(font.getlength, lines))
    if widest <= width or columns <= 2:
        return lines
    return _wrap(text, min(columns - 1, int(columns * width / widest)), font, width, most)


@functools.cache
def _font(letter: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(letter)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("Pillow was built without FreeType: install the wheel from PyPI")
    return font


def _rounded_mask(size: tuple[int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, size[0] - 1, size[1] - 1), min(size) // 12, 255)
    return mask
