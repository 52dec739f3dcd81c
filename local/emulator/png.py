"""PNG files, written quickly: Pillow tries every filter on every row and holds the interpreter's lock for it."""

import zlib

from PIL import Image, ImageChops

MOST_BYTES = 256 * 1024 * 1024

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_COLOUR_TYPES = {"RGB": 2, "RGBA": 6}
_UP = b"\x02"  # the filter: each row is its difference from the one above
_EMPTY = 12  # bytes of a chunk that holds nothing


def png(image: Image.Image, size: int = 0) -> bytes:
    """The image as a file, padded to ``size`` bytes by a private chunk if it is smaller by 12 or more."""
    header = image.width.to_bytes(4) + image.height.to_bytes(4) + bytes((8, _COLOUR_TYPES[image.mode], 0, 0, 0))
    parts = [_SIGNATURE, _chunk(b"IHDR", header), _chunk(b"IDAT", zlib.compress(_rows(image), 1)), _chunk(b"IEND", b"")]
    padding = min(size, MOST_BYTES) - sum(map(len, parts)) - _EMPTY
    if padding >= 0:
        parts.insert(-1, _chunk(b"paDd", bytes(padding)))
    return b"".join(parts)


def _rows(image: Image.Image) -> bytes:
    above = Image.new(image.mode, image.size)
    above.paste(image, (0, 1))
    pixels = ImageChops.subtract_modulo(image, above).tobytes()
    stride = len(pixels) // image.height
    return b"".join(_UP + pixels[start : start + stride] for start in range(0, len(pixels), stride))


def _chunk(kind: bytes, body: bytes) -> bytes:
    return len(body).to_bytes(4) + kind + body + zlib.crc32(kind + body).to_bytes(4)
