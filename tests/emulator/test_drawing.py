"""The images that the emulator draws."""

import io
from dataclasses import replace
from typing import Literal

import pytest
from PIL import Image, ImageDraw, ImageFont

from local.emulator.drawing import Drawing, printable

CHAIR = Drawing(prompt="An avocado chair", width=256, height=256)


def opened(drawing: Drawing) -> Image.Image:
    image = Image.open(io.BytesIO(drawing.encode()))
    image.load()
    return image


SIZES = [(256, 256), (512, 512), (1024, 1024), (1536, 1024), (768, 1365), (1280, 432), (257, 2048), (2048, 256)]


@pytest.mark.parametrize(("width", "height"), SIZES)
def test_png_has_the_requested_size(width: int, height: int) -> None:
    image = opened(replace(CHAIR, width=width, height=height))
    assert (image.format, image.size, image.mode) == ("PNG", (width, height), "RGB")


def test_same_drawing_gives_the_same_bytes() -> None:
    assert CHAIR.encode() == replace(CHAIR).encode()


def test_prompt_and_index_change_the_background() -> None:
    def background(drawing: Drawing) -> bytes:
        return drawing.draw().crop((0, 0, 256, 128)).tobytes()

    assert (
        len({background(CHAIR), background(replace(CHAIR, prompt="chairs")), background(replace(CHAIR, index=1))}) == 3
    )


def test_prompt_and_count_change_the_text() -> None:
    def text(drawing: Drawing) -> bytes:
        return drawing.draw().crop((0, 128, 256, 256)).tobytes()

    assert len({text(CHAIR), text(replace(CHAIR, prompt="chairs")), text(replace(CHAIR, count=2))}) == 3


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP"])
def test_file_has_the_requested_format(image_format: Literal["PNG", "JPEG", "WEBP"]) -> None:
    assert opened(replace(CHAIR, format=image_format)).format == image_format


LONG = [
    ("x" * 1000, "one word longer than any line"),
    ("lorem ipsum " * 83, "as long as the asynchronous API allows"),
    ("lorem ipsum " * 2_666, "as long as any API allows"),
    ("W" * 1000, "the widest letters"),
    ("i" * 900 + " " + "W" * 100, "wide letters after narrow ones"),
]


WHITEST_TILE = 200
"""No colour of the background has more than this of red, green and blue; the letters have."""


@pytest.mark.parametrize("side", [256, 1024])
@pytest.mark.parametrize(("prompt", "reason"), LONG, ids=[row[1] for row in LONG])
def test_long_prompt_stays_inside_its_panel(prompt: str, reason: str, side: int) -> None:
    image = Drawing(prompt=prompt, width=side, height=side).draw()
    margin = side // 28

    def has_text(left: int, top: int, right: int, bottom: int) -> bool:
        pixels = image.crop((left, top, right, bottom)).tobytes()
        colours = set(zip(pixels[::3], pixels[1::3], pixels[2::3], strict=True))
        return max(map(min, colours)) > WHITEST_TILE

    assert has_text(2 * margin, margin, side - 2 * margin, side - margin), reason
    for edge in (
        (side - margin, 0, side, side),  # right of the panel
        (0, 0, side, margin),  # above it
        (0, side - margin, side, side),  # below it
    ):
        assert not has_text(*edge), reason


BOX = "\uffff"
"""The font draws a crossed box for it."""

PRINTABLE = [
    ("a lighthouse \u2014 in fog, 9\u20135", "a lighthouse - in fog, 9-5", "dashes"),
    ("fog \N{FOGGY}", f"fog {BOX}", "an emoji"),
    ("\N{WHITE HEAVY CHECK MARK}\ufe0f \N{MAN}\u200d\N{BOY}", f"{BOX} {BOX}{BOX}", "emoji of several code points"),
    ("日本の灯台", BOX * 5, "CJK"),
    ("Küste, naïve, Ku\u0308ste", "Kuste, naive, Kuste", "accents"),
    ("\u201equoted\u201c \u2022 20\u00b0", "\u201cquoted\u201c · 20\u00b0", "other punctuation"),
    ("a\n\t b", "a b", "white space"),
    ("\x00\x07", BOX * 2, "control characters"),
    ("\u201cquoted\u201d", "\u201cquoted\u201d", "curly quotes"),
    ("x" * 2_001, "x" * 2_000 + "…", "longer than an image shows"),
]


@pytest.mark.parametrize(("prompt", "text", "reason"), PRINTABLE, ids=[row[2] for row in PRINTABLE])
def test_characters_outside_the_font_become_boxes(prompt: str, text: str, reason: str) -> None:
    assert printable(prompt) == text, reason
    assert Drawing(prompt=prompt, width=256, height=256).draw().size == (256, 256)


def test_font_has_every_character_that_is_written() -> None:
    font = ImageFont.load_default(40)

    def glyph(letter: str) -> bytes:
        image = Image.new("L", (60, 60))
        ImageDraw.Draw(image).text((5, 5), letter, 255, font)
        return image.tobytes()

    missing = glyph(BOX)
    assert missing != glyph(" ")  # visible
    written = {letter for letter in map(chr, range(0x20, 0x2200)) if printable(f"x{letter}x") == f"x{letter}x"}
    assert len(written) == 110
    assert [letter for letter in written if glyph(letter) == missing] == []


def test_empty_prompt_is_drawn() -> None:
    assert Drawing(prompt=" ", width=256, height=256).draw().size == (256, 256)


def test_png_is_lossless() -> None:
    assert opened(CHAIR).tobytes() == CHAIR.draw().tobytes()


def test_transparent_image_has_no_corners() -> None:
    image = opened(replace(CHAIR, transparent=True))
    assert image.mode == "RGBA"
    alpha = image.getchannel("A")
    assert (alpha.getpixel((0, 0)), alpha.getpixel((128, 128))) == (0, 255)


@pytest.mark.parametrize("image_format", ["JPEG", "WEBP"])
def test_lower_quality_gives_a_smaller_file(image_format: Literal["JPEG", "WEBP"]) -> None:
    small, large = (len(replace(CHAIR, format=image_format, quality=quality).encode()) for quality in (0, 100))
    assert small < large


def test_padding_reaches_the_exact_size() -> None:
    padded = replace(CHAIR, padded_size=1_000_000)
    assert len(padded.encode()) == 1_000_000
    assert opened(padded).tobytes() == opened(CHAIR).tobytes()


def test_padding_never_cuts_a_file() -> None:
    plain = CHAIR.encode()
    for size in (0, 1, len(plain), len(plain) + 11):
        assert replace(CHAIR, padded_size=size).encode() == plain
    assert len(replace(CHAIR, padded_size=len(plain) + 12).encode()) == len(plain) + 12


def test_only_a_png_is_padded() -> None:
    jpeg = replace(CHAIR, format="JPEG")
    assert replace(jpeg, padded_size=1_000_000).encode() == jpeg.encode()
