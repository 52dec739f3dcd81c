"""Small image files."""

from __future__ import annotations

import io
import random
from functools import cache

from PIL import Image


@cache
def picture(form: str, *, side: int = 16) -> bytes:
    """Return an image of noise, which does not compress, in a format of Pillow: PNG, JPEG, WEBP, …"""
    pixels = random.Random(form).randbytes(side * side * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(out, form)
    return out.getvalue()
