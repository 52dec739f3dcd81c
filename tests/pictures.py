"""Small real pictures."""

from __future__ import annotations

import io
import random
from functools import cache

from PIL import Image


@cache
def picture(form: str, *, side: int = 16) -> bytes:
    """PNG, JPEG, WEBP or another format that Pillow writes, of noise: it does not compress."""
    pixels = random.Random(form).randbytes(side * side * 3)
    out = io.BytesIO()
    Image.frombytes("RGB", (side, side), pixels).save(out, form)
    return out.getvalue()
