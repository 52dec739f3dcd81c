"""Entra tokens as the emulator reads them: unsigned JWTs with an audience."""

from __future__ import annotations

import base64
import json
from typing import Final


def _token(audience: str) -> str:
    claims = base64.urlsafe_b64encode(json.dumps({"aud": audience}).encode()).rstrip(b"=").decode()
    return f"e30.{claims}.x"


ENTRA_TOKEN: Final = _token("https://cognitiveservices.azure.com")
OTHER_TOKEN: Final = _token("https://management.azure.com")
