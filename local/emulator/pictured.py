"""The answer that holds pictures in base64."""

import math
import secrets
from binascii import b2a_base64
from collections.abc import Iterator, Sequence
from typing import Any

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from local.emulator.connection import cut_off
from local.emulator.errors import json_answer

PICTURE = secrets.token_hex(16)
"""Stands in the document where a picture's base64 is to be; nobody can know it, so no prompt can hold it."""

_MARK = f'"{PICTURE}"'.encode()
_PIECE = 3 * 256 * 1024  # of three bytes: base64 can go on after it


class Pictured(Response):
    """JSON with the pictures encoded as they are sent: ten of 20 MB are never one string.

    ``cut`` breaks it off in the middle.
    """

    def __init__(
        self, document: dict[str, Any], pictures: Sequence[bytes], headers: dict[str, str], *, cut: bool = False
    ) -> None:
        self._texts = bytes(json_answer(document).body).split(_MARK)
        self._pictures = pictures
        self._cut = cut
        quotes = 2 * len(pictures)
        self._length = sum(map(len, self._texts)) + quotes + sum(4 * math.ceil(len(file) / 3) for file in pictures)
        super().__init__(None, 200, headers | {"content-length": str(self._length)}, media_type="application/json")

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Called by Starlette."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        left = self._length // 2 if self._cut else self._length
        for piece in self._pieces():
            await send({"type": "http.response.body", "body": piece[:left], "more_body": True})
            left -= len(piece)
            if left <= 0:
                break
        if self._cut:
            await cut_off(scope, receive)
        else:
            await send({"type": "http.response.body", "body": b""})

    def _pieces(self) -> Iterator[bytes]:
        first, *others = self._texts
        yield first
        for file, text in zip(self._pictures, others, strict=True):
            yield b'"'
            for start in range(0, len(file), _PIECE):
                yield b2a_base64(memoryview(file)[start : start + _PIECE], newline=False)
            yield b'"' + text
