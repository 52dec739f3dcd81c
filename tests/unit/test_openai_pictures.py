"""The pictures."""

import io

import pytest
from PIL import Image

from local.openai.pictures import Format, Picture, draw, encode


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
    with Image.open(io.BytesIO(encode(Picture("chair", 0, 1, 256, 256), form))) as image:
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
