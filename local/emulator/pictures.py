"""Pictures that show their prompt, drawn from the prompt and the index alone: the same again every time."""

import colorsys
import functools
import hashlib
import io
import math
import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from PIL import Image, ImageDraw, ImageFilter, ImageFont

from local.emulator.png import png

Colour = tuple[int, int, int]
Point = tuple[float, float]
Format = Literal["PNG", "JPEG", "WEBP"]

CONTENT_TYPES: dict[Format, str] = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}

_MESH = 5  # colours a side of the background's grid; the resize makes it smooth
_FINER = 2  # shapes are drawn this much larger and reduced, Pillow does not smooth edges itself
_SMALLEST_LETTER = 8
_LINE = 1.28


@dataclass(frozen=True)
class Picture:
    """What one picture shows: picture ``index`` (from 0) of ``n``, in pixels."""

    prompt: str
    index: int
    n: int
    width: int
    height: int


@dataclass(frozen=True)
class Rendering:
    """What kind of file a picture becomes."""

    form: Format = "PNG"
    quality: int = 85  # of a JPEG or a WebP, 0 to 100
    transparent: bool = False  # the corners are cut out; PNG only
    size: int = 0  # a PNG is padded to so many bytes


@dataclass(frozen=True)
class _Palette:
    sky: tuple[Colour, ...]
    ink: tuple[Colour, ...]  # far to near
    light: Colour


def encode(picture: Picture, rendering: Rendering = Rendering()) -> bytes:
    """The picture as a file. Takes some 50 ms of one core at 1024x1024: call it in a thread."""
    image = draw(picture)
    if rendering.form == "PNG":
        if rendering.transparent:
            _cut_corners(image)
        return png(image, rendering.size)
    out = io.BytesIO()
    image.save(out, rendering.form, quality=rendering.quality)
    return out.getvalue()


def _cut_corners(image: Image.Image) -> None:
    shape = Image.new("L", image.size, 0)
    box = (0, 0, image.width - 1, image.height - 1)
    ImageDraw.Draw(shape).rounded_rectangle(box, radius=min(image.size) // 12, fill=255)
    image.putalpha(shape)


def draw(picture: Picture) -> Image.Image:
    """Background, scene, words."""
    seed = hashlib.sha256(f"{picture.index}\n{picture.prompt}".encode()).digest()
    dice = random.Random(seed)
    palette = _palette(dice)
    image = _mesh(dice, palette.sky, picture.width, picture.height)
    scene = dice.choice(_SCENES)
    large = _scaled(image, (picture.width * _FINER, picture.height * _FINER), Image.Resampling.NEAREST)
    scene(dice, palette, large)
    image = large.reduce(_FINER)
    _write(image, picture)
    return image


def _palette(dice: random.Random) -> _Palette:
    hue = dice.random()
    turn = dice.choice((0.08, 0.13, 0.42, 0.5, -0.1))

    def colour(position: float, lightness: float, strength: float) -> Colour:
        red, green, blue = colorsys.hls_to_rgb((hue + turn * position) % 1, lightness, strength)
        return round(red * 255), round(green * 255), round(blue * 255)

    sky = tuple(colour(dice.random(), dice.uniform(0.55, 0.82), dice.uniform(0.4, 0.75)) for _ in range(5))
    ink = tuple(colour(step / 4, 0.52 - 0.09 * step, 0.5) for step in range(5))
    return _Palette(sky=sky, ink=ink, light=colour(1.0, 0.9, 0.9))


def _mesh(dice: random.Random, colours: tuple[Colour, ...], width: int, height: int) -> Image.Image:
    grid = Image.new("RGB", (_MESH, _MESH))
    for y in range(_MESH):
        for x in range(_MESH):
            grid.putpixel((x, y), dice.choice(colours))
    return _scaled(grid, (width, height), Image.Resampling.BICUBIC)


def _scaled(image: Image.Image, size: tuple[int, int], how: Image.Resampling) -> Image.Image:
    return image.resize(size, how)  # pyright: ignore[reportUnknownMemberType] - Pillow's type names numpy's


def _hills(dice: random.Random, palette: _Palette, image: Image.Image) -> None:
    pen = ImageDraw.Draw(image)
    width, height = image.size
    radius = dice.uniform(0.07, 0.14) * height
    pen.circle((dice.uniform(0.2, 0.8) * width, dice.uniform(0.16, 0.3) * height), radius, fill=palette.light)
    for layer, colour in enumerate(palette.ink):
        top = (0.34 + 0.1 * layer) * height
        pen.polygon(_wave(dice, width, height, top, 0.055 * height), fill=colour)


def _wave(dice: random.Random, width: int, height: int, top: float, swing: float) -> list[Point]:
    """A band from a wavy line down to the bottom edge."""
    parts = [(dice.uniform(0.6, 1.6) * k, dice.uniform(0, math.tau), swing / k) for k in (1, 2, 4)]
    steps = 96
    line = [
        (
            width * step / steps,
            top + sum(a * math.sin(math.tau * f * step / steps + p) for f, p, a in parts),
        )
        for step in range(steps + 1)
    ]
    return [(0, height), *line, (width, height)]


def _orbits(dice: random.Random, palette: _Palette, image: Image.Image) -> None:
    pen = ImageDraw.Draw(image)
    width, height = image.size
    centre = (dice.uniform(0.35, 0.65) * width, dice.uniform(0.28, 0.42) * height)
    unit = min(width, height)
    line = max(2, unit // 400)
    pen.circle(centre, 0.07 * unit, fill=palette.light)
    for ring in range(1, 8):
        radius = (0.07 + 0.075 * ring) * unit
        pen.circle(centre, radius, outline=palette.light, width=line)
        angle = dice.uniform(0, math.tau)
        planet = (centre[0] + radius * math.cos(angle), centre[1] + radius * math.sin(angle))
        pen.circle(planet, dice.uniform(0.012, 0.035) * unit, fill=dice.choice(palette.ink))


def _bubbles(dice: random.Random, palette: _Palette, image: Image.Image) -> None:
    width, height = image.size
    unit = min(width, height)
    veil = ImageDraw.Draw(image, "RGBA")
    for _ in range(26):
        centre = (dice.uniform(0, width), dice.uniform(0, 0.8 * height))
        radius = unit * dice.uniform(0.02, 0.16)
        colour = dice.choice((*palette.ink, palette.light))
        veil.circle(centre, radius, fill=(*colour, 90), outline=(*palette.light, 170), width=max(2, unit // 500))


def _tiles(dice: random.Random, palette: _Palette, image: Image.Image) -> None:
    pen = ImageDraw.Draw(image, "RGBA")
    width, height = image.size
    side = min(width, height) / dice.choice((6, 8))
    for row in range(math.ceil(height / side)):
        for column in range(math.ceil(width / side)):
            corner = (column * side, row * side)
            _tile(pen, dice, (*dice.choice((*palette.ink, palette.light)), 150), corner, side)


def _tile(
    pen: ImageDraw.ImageDraw, dice: random.Random, colour: tuple[int, int, int, int], at: Point, side: float
) -> None:
    x, y = at
    start = dice.choice((0, 90, 180, 270))
    corner = {0: (x, y), 90: (x + side, y), 180: (x + side, y + side), 270: (x, y + side)}[start]
    shape = dice.random()
    if shape < 0.55:  # a quarter of a disc round one corner
        box = (corner[0] - side, corner[1] - side, corner[0] + side, corner[1] + side)
        pen.pieslice(box, start, start + 90, fill=colour)
    elif shape < 0.8:
        pen.circle((x + side / 2, y + side / 2), side * 0.3, fill=colour)


_SCENES: tuple[Callable[[random.Random, _Palette, Image.Image], None], ...] = (_hills, _orbits, _bubbles, _tiles)


def _write(image: Image.Image, picture: Picture) -> None:
    """The prompt on a dark pane at the foot, and small under it the size and the index."""
    width, height = image.size
    margin = max(6, width // 28)
    pad = max(5, width // 40)
    small = max(_SMALLEST_LETTER, min(width, height) // 48)
    room = (width - 2 * margin - 2 * pad, height - 2 * margin - 3 * pad - small)
    letter, lines = _fit(" ".join(picture.prompt.split()), room, largest=max(12, min(width, height) // 17))
    tall = round(len(lines) * letter * _LINE) + small + 3 * pad
    box = (margin, height - margin - tall, width - margin, height - margin)
    _pane(image, box, radius=pad)

    pen = ImageDraw.Draw(image)
    y = box[1] + pad
    for line in lines:
        pen.text((margin + pad, y), line, font=_font(letter), fill=(255, 255, 255))
        y += letter * _LINE
    foot = f"{width}x{height}   {picture.index + 1} of {picture.n}   local.emulator"
    pen.text((margin + pad, box[3] - pad - small), foot, font=_font(small), fill=(205, 210, 220))


def _pane(image: Image.Image, box: tuple[int, int, int, int], radius: int) -> None:
    """Darkened, frosted glass: letters on it are legible whatever is behind."""
    behind = image.crop(box)
    fine = _scaled(behind, (behind.width // 8 + 1, behind.height // 8 + 1), Image.Resampling.BOX)
    frosted = _scaled(fine.filter(ImageFilter.GaussianBlur(3)), behind.size, Image.Resampling.BILINEAR)
    frosted = Image.blend(frosted, Image.new("RGB", behind.size, (14, 16, 26)), 0.72)
    shape = Image.new("L", behind.size, 0)
    ImageDraw.Draw(shape).rounded_rectangle((0, 0, behind.width - 1, behind.height - 1), radius, fill=255)
    image.paste(frosted, box, shape)


def _fit(text: str, room: tuple[int, int], largest: int) -> tuple[int, list[str]]:
    """The largest letters with which the text fits the room, and its lines; past the smallest it is cut."""
    guess = math.sqrt(room[0] * room[1] / (max(1, len(text)) * 0.5 * _LINE))  # spares trying sizes in vain
    letter = max(_SMALLEST_LETTER, min(largest, int(guess * 1.1)))
    while True:
        lines = _wrap(text, _font(letter), room[0])
        most = int(room[1] / (letter * _LINE))
        if len(lines) <= most:
            return letter, lines
        if letter <= _SMALLEST_LETTER:
            return letter, [*lines[: most - 1], lines[most - 1][:-1] + "…"]
        letter = max(_SMALLEST_LETTER, int(letter * 0.9))


def _wrap(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    space = font.getlength(" ")
    lines: list[str] = []
    used = math.inf
    for word in _pieces(text, font, width):
        length = font.getlength(word)
        if used + space + length > width:
            lines.append(word)
            used = length
        else:
            lines[-1] += " " + word
            used += space + length
    return lines


def _pieces(text: str, font: ImageFont.FreeTypeFont, width: int) -> list[str]:
    """The words; one too long for a line comes in parts."""
    pieces: list[str] = []
    for word in text.split(" "):
        length = font.getlength(word)
        usual = len(word) if length <= width else max(1, int(len(word) * width / length))
        rest = word
        while rest:
            share = usual
            while share > 1 and font.getlength(rest[:share]) > width:
                share -= 1
            pieces.append(rest[:share])
            rest = rest[share:]
    return pieces or [""]


@functools.lru_cache(maxsize=64)
def _font(letter: int) -> ImageFont.FreeTypeFont:
    font = ImageFont.load_default(size=letter)
    if not isinstance(font, ImageFont.FreeTypeFont):
        raise TypeError("this Pillow is built without FreeType")
    return font
