"""The pictures."""

import io

import pytest
from PIL import Image

from local.emulator.pictures import Format, Picture, Rendering, draw, encode


@pytest.mark.parametrize("side", [256, 512, 1024])
def test_picture_is_a_png_of_the_asked_size(side: int) -> None:
    with Image.open(io.BytesIO(encode(Picture("An avocado chair", 0, 1, side, side)))) as image:
        image.load()
        assert (image.format, image.size, image.mode) == ("PNG", (side, side), "RGB")


def test_the_same_picture_is_the_same_bytes() -> None:
    assert encode(Picture("chair", 1, 3, 256, 256)) == encode(Picture("chair", 1, 3, 256, 256))


def test_another_prompt_or_index_is_another_scene() -> None:
    def scene(prompt: str, index: int) -> bytes:
        return draw(Picture(prompt, index, 3, 256, 256)).crop((0, 0, 256, 128)).tobytes()

    assert len({scene("chair", 0), scene("chairs", 0), scene("chair", 1)}) == 3


def test_another_prompt_index_or_number_is_another_picture() -> None:
    pictures = [Picture("chair", 0, 3, 256, 256), Picture("chairs", 0, 3, 256, 256), Picture("chair", 1, 3, 256, 256)]
    assert len({encode(picture) for picture in [*pictures, Picture("chair", 0, 4, 256, 256)]}) == 4


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
def test_picture_comes_in_the_asked_format(form: Format) -> None:
    with Image.open(io.BytesIO(encode(Picture("chair", 0, 1, 256, 256), Rendering(form)))) as image:
        assert image.format == form


AWKWARD = [
    ("x" * 1000, "one word longer than any line"),
    ("lorem ipsum " * 83, "as long as the API allows"),
    ("W" * 1000, "the widest letters"),
    (" ", "no words"),
    ("\n\t\x00\x07", "control characters"),
    ("\N{AVOCADO} アボカド", "letters the font has not"),
]


@pytest.mark.parametrize(("prompt", "reason"), AWKWARD, ids=[row[1] for row in AWKWARD])
def test_awkward_prompts_fit_the_smallest_picture(prompt: str, reason: str) -> None:
    with Image.open(io.BytesIO(encode(Picture(prompt, 0, 1, 256, 256)))) as image:
        assert image.size == (256, 256), reason


ODD = [(1536, 1024), (1024, 1536), (768, 1365), (1280, 432), (257, 2048)]


@pytest.mark.parametrize(("width", "height"), ODD)
def test_picture_is_drawn_in_any_shape(width: int, height: int) -> None:
    with Image.open(io.BytesIO(encode(Picture("An avocado chair", 0, 1, width, height)))) as image:
        image.load()
        assert image.size == (width, height)


def test_a_png_is_what_was_drawn() -> None:
    picture = Picture("chair", 0, 1, 256, 300)
    with Image.open(io.BytesIO(encode(picture))) as image:
        assert image.tobytes() == draw(picture).tobytes()


def test_a_transparent_picture_has_no_corners() -> None:
    with Image.open(io.BytesIO(encode(Picture("chair", 0, 1, 256, 256), Rendering(transparent=True)))) as image:
        assert image.mode == "RGBA"
        alpha = image.getchannel("A")
        assert (alpha.getpixel((0, 0)), alpha.getpixel((128, 128))) == (0, 255)


@pytest.mark.parametrize("form", ["JPEG", "WEBP"])
def test_quality_makes_a_file_smaller_or_larger(form: Format) -> None:
    picture = Picture("chair", 0, 1, 256, 256)
    small, large = (len(encode(picture, Rendering(form, quality))) for quality in (0, 100))
    assert small < large


def test_a_padded_picture_has_exactly_the_size_and_the_same_pixels() -> None:
    picture = Picture("chair", 0, 1, 256, 256)
    plain, padded = encode(picture), encode(picture, Rendering(size=1_000_000))
    assert len(padded) == 1_000_000
    with Image.open(io.BytesIO(plain)) as one, Image.open(io.BytesIO(padded)) as other:
        assert one.tobytes() == other.tobytes()


def test_padding_never_cuts() -> None:
    picture = Picture("chair", 0, 1, 256, 256)
    plain = encode(picture)
    for size in (0, 1, len(plain), len(plain) + 11):
        assert encode(picture, Rendering(size=size)) == plain
    assert len(encode(picture, Rendering(size=len(plain) + 12))) == len(plain) + 12


def test_the_longest_prompt_of_any_api_fits() -> None:
    with Image.open(io.BytesIO(encode(Picture("lorem ipsum " * 2_666, 0, 1, 256, 256)))) as image:
        assert image.size == (256, 256)
