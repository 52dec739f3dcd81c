"""What the APIs that answer with the picture accept, and in which words they refuse."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.emulator import dalle, flux, gpt_image, mai
from local.emulator.calls import Order
from local.emulator.dalle import DalleOrder
from local.emulator.deployments import is_dalle
from local.emulator.errors import ServiceError
from local.emulator.fields import Fields
from local.emulator.flux import FluxOrder
from local.emulator.gpt_image import GptImageOrder
from local.emulator.mai import MaiOrder
from local.emulator.pictures import Rendering


def gpt(body: bytes, deployment: str | None = "gpt-image-1.5") -> GptImageOrder:
    return GptImageOrder.read(Fields.parse(body, gpt_image.SPELLING), deployment)


def gpt2(body: bytes) -> GptImageOrder:
    return gpt(body, "gpt-image-2")


def gpt_v1(body: bytes) -> GptImageOrder:
    return gpt(body, None)


def dall(body: bytes) -> DalleOrder:
    return DalleOrder.read(Fields.parse(body, dalle.SPELLING), "dall-e-3")


def flx(body: bytes) -> FluxOrder:
    return FluxOrder.read(Fields.parse(body, flux.SPELLING))


def ms(body: bytes) -> MaiOrder:
    return MaiOrder.read(Fields.parse(body, mai.SPELLING))


Read = Callable[[bytes], Order]


def written(**fields: object) -> bytes:
    return json.dumps({"prompt": "x", **fields}).encode()


REFUSED: list[tuple[Read, bytes, str, str | None, str]] = [
    (gpt, b"", "invalid_json", None, "no body"),
    (gpt, b"\xff{}", "invalid_json", None, "not UTF-8"),
    (gpt, b"[" * 100_000, "invalid_json", None, "nested beyond reason"),
    (gpt, b"[]", "invalid_json", None, "not an object"),
    (gpt, b"{}", "missing_required_parameter", "prompt", "no prompt"),
    (gpt, written(prompt=None), "missing_required_parameter", "prompt", "null is left out"),
    (gpt, written(prompt=""), "empty_string", "prompt", "an empty prompt"),
    (gpt, written(prompt="x" * 32_001), "string_above_max_length", "prompt", "a prompt of 32,001"),
    (gpt, written(prompt=7), "invalid_type", "prompt", "a prompt that is no string"),
    (gpt, b'{"prompt": "\\ud800"}', "invalid_value", "prompt", "half a surrogate pair"),
    (gpt_v1, written(), "missing_required_parameter", "model", "v1 needs the model"),
    (gpt, written(response_format="b64_json"), "unknown_parameter", "response_format", "always base64"),
    (gpt, written(response_format=None), "unknown_parameter", "response_format", "not even null"),
    (gpt, written(style="vivid"), "unknown_parameter", "style", "DALL·E's"),
    (gpt, written(width=1024), "unknown_parameter", "width", "FLUX's"),
    (gpt, written(n=0), "integer_below_min_value", "n", "n too small"),
    (gpt, written(n=11), "integer_above_max_value", "n", "n too large"),
    (gpt, written(n="1"), "invalid_type", "n", "n as a string"),
    (gpt, written(n=1.0), "invalid_type", "n", "n as a float"),
    (gpt, written(n=True), "invalid_type", "n", "a bool is no integer"),
    (gpt, written(n=[]), "invalid_type", "n", "an array"),
    (gpt, written(size="512x512"), "invalid_value", "size", "an older API's size"),
    (gpt, written(size="1792x1024"), "invalid_value", "size", "DALL·E's size"),
    (gpt, written(size="2048x2048"), "invalid_value", "size", "gpt-image-2's size"),
    (gpt2, written(size="1000x1024"), "invalid_value", "size", "no multiple of 16"),
    (gpt2, written(size="3856x1600"), "invalid_value", "size", "a long edge beyond 3840"),
    (gpt2, written(size="3840x1264"), "invalid_value", "size", "more than three to one"),
    (gpt2, written(size="3840x2176"), "invalid_value", "size", "too many pixels"),
    (gpt2, written(size="512x512"), "invalid_value", "size", "too few pixels"),
    (gpt2, written(size="big"), "invalid_value", "size", "no size"),
    (gpt, written(quality="hd"), "invalid_value", "quality", "DALL·E's quality"),
    (gpt, written(output_format="webp"), "invalid_value", "output_format", "OpenAI has it, Azure has not"),
    (gpt, written(output_compression=80), "invalid_png_output_compression", None, "png cannot be compressed"),
    (gpt, written(output_compression=101, output_format="jpeg"), "integer_above_max_value", "output_compression", "%"),
    (gpt, written(background="white"), "invalid_value", "background", "an unknown background"),
    (gpt, written(background="transparent", output_format="jpeg"), "invalid_value", "background", "JPEG is opaque"),
    (gpt, written(user=7), "invalid_type", "user", "user is no string"),
    (dall, written(n=2), "integer_above_max_value", "n", "one at a time"),
    (dall, written(prompt="x" * 4001), "string_above_max_length", "prompt", "a prompt of 4,001"),
    (dall, written(size="512x512"), "invalid_value", "size", "DALL·E 2's size"),
    (dall, written(size="auto"), "invalid_value", "size", "gpt-image's size"),
    (dall, written(quality="high"), "invalid_value", "quality", "gpt-image's quality"),
    (dall, written(style="plain"), "invalid_value", "style", "an unknown style"),
    (dall, written(response_format="png"), "invalid_value", "response_format", "an unknown form"),
    (dall, written(output_format="png"), "unknown_parameter", "output_format", "gpt-image's"),
]


@pytest.mark.parametrize(("read", "body", "code", "param", "reason"), REFUSED, ids=[row[4] for row in REFUSED])
def test_openai_refuses_with_code_and_parameter(
    read: Read, body: bytes, code: str, param: str | None, reason: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        read(body)
    assert (refused.value.status, refused.value.code, refused.value.more["param"]) == (400, code, param), reason


def test_an_unknown_parameter_is_spelt_as_by_the_service() -> None:
    with pytest.raises(ServiceError) as refused:
        gpt(written(response_format="b64_json"))
    assert refused.value.body() == {
        "message": "Unknown parameter: 'response_format'.",
        "type": "invalid_request_error",
        "param": "response_format",
        "code": "unknown_parameter",
    }


FOUNDRY_REFUSED: list[tuple[Read, bytes, str]] = [
    (flx, written(), "FLUX needs the model"),
    (flx, written(model="f", n=1), "FLUX has num_images"),
    (flx, written(model="f", size="1024x1024"), "FLUX has width and height"),
    (flx, written(model="f", num_images=5), "four pictures at most"),
    (flx, written(model="f", width=255), "too narrow"),
    (flx, written(model="f", height=2049), "too tall"),
    (flx, written(model="f", width="1024"), "a string"),
    (flx, written(model="f", output_format="webp"), "an unknown format"),
    (flx, written(model="f", seed=1.5), "a seed that is no integer"),
    (ms, written(), "MAI needs the model"),
    (ms, written(model="m", n=1), "MAI makes one"),
    (ms, written(model="m", size="1024x1024"), "MAI has width and height"),
    (ms, written(model="m", response_format="b64_json"), "always base64"),
    (ms, written(model="m", height=767), "too short a side"),
    (ms, written(model="m", width=1040), "too many pixels"),
    (ms, written(model="MAI-Image-2.6", width=1537, height=1536), "too many pixels for 2.6"),
    (ms, b"no json", "not JSON"),
]


@pytest.mark.parametrize(("read", "body", "reason"), FOUNDRY_REFUSED, ids=[row[2] for row in FOUNDRY_REFUSED])
def test_foundry_refuses_with_one_code(read: Read, body: bytes, reason: str) -> None:
    with pytest.raises(ServiceError) as refused:
        read(body)
    code = "BadRequest" if read is flx else "unsupported_request_value"
    assert (refused.value.status, refused.value.code) == (400, code), reason
    assert "param" not in refused.value.more


def test_mai_says_it_twice() -> None:
    with pytest.raises(ServiceError) as refused:
        ms(written(model="m", width=512))
    said = "Model does not support request parameter value supplied: 'width' must be at least 768 pixels."
    assert refused.value.body() == {"code": "unsupported_request_value", "message": said, "details": said}


ACCEPTED: list[tuple[Read, dict[str, object], dict[str, object], str]] = [
    (gpt, {}, {"n": 1, "width": 1024, "height": 1024, "quality": "high", "background": "opaque"}, "the defaults"),
    (gpt, {"prompt": "\N{AVOCADO}" * 32_000}, {}, "characters, not bytes"),
    (gpt, {"n": 10, "size": "1536x1024"}, {"n": 10, "width": 1536, "height": 1024}, "the most"),
    (gpt, {"n": None, "quality": None}, {"n": 1, "quality": "high"}, "null is left out"),
    (gpt, {"output_format": "jpeg"}, {"rendering": Rendering("JPEG", 100)}, "a JPEG"),
    (gpt, {"output_format": "jpeg", "output_compression": 0}, {"rendering": Rendering("JPEG", 0)}, "a small JPEG"),
    (gpt, {"background": "transparent"}, {"rendering": Rendering(transparent=True)}, "transparent"),
    (gpt, {"model": "another"}, {"deployment": "gpt-image-1.5"}, "the path names the deployment"),
    (gpt_v1, {"model": "mine"}, {"deployment": "mine"}, "on v1 the model does"),
    (gpt2, {"size": "3840x2160"}, {"width": 3840, "height": 2160}, "the most pixels"),
    (gpt2, {"size": "1280x512"}, {"width": 1280, "height": 512}, "the fewest pixels"),
    (gpt2, {"size": "3840x1280"}, {"width": 3840, "height": 1280}, "three to one"),
    (gpt2, {"size": "auto"}, {"width": 1024, "height": 1024}, "or as it likes"),
    (dall, {"size": "1792x1024", "n": 1}, {"width": 1792, "height": 1024, "by_url": True}, "a link"),
    (dall, {"response_format": "b64_json", "quality": "hd"}, {"by_url": False}, "or base64"),
    (flx, {"model": "f"}, {"deployment": "f", "n": 1, "width": 1024, "height": 1024}, "FLUX's defaults"),
    (flx, {"model": "f", "num_images": 4, "width": 256, "height": 2048, "seed": -1}, {"n": 4, "width": 256}, "edges"),
    (flx, {"model": "f", "prompt": "[url]"}, {"by_url": True}, "links on request"),
    (flx, {"model": "f", "output_format": "jpeg"}, {"rendering": Rendering("JPEG")}, "FLUX as a JPEG"),
    (ms, {"model": "m"}, {"deployment": "m", "n": 1, "width": 1024, "height": 1024}, "MAI's defaults"),
    (ms, {"model": "m", "width": 768, "height": 1365}, {"width": 768, "height": 1365}, "the most pixels of MAI"),
    (ms, {"model": "mai-image-2.6-flash", "width": 1536, "height": 1536}, {"width": 1536}, "2.6 takes more"),
]


@pytest.mark.parametrize(("read", "body", "expected", "reason"), ACCEPTED, ids=[row[3] for row in ACCEPTED])
def test_what_is_right_is_accepted(
    read: Read, body: dict[str, object], expected: dict[str, object], reason: str
) -> None:
    order = read(written(**body))
    assert {name: getattr(order, name) for name in expected} == expected, reason


KINDS = [
    ("dall-e-3", "2024-10-21", True, "by its name"),
    ("Dalle3", "2025-04-01-preview", True, "by its name, also in the latest version"),
    ("gpt-image-1", "2025-04-01-preview", False, "by its name"),
    ("gpt-image-1", "2024-10-21", False, "by its name, also where the version does not know it"),
    ("pictures", "2024-10-21", True, "by the version"),
    ("pictures", "2025-04-01-preview", False, "by the version"),
]


@pytest.mark.parametrize(("deployment", "version", "expected", "reason"), KINDS)
def test_a_deployment_is_of_the_kind_its_name_or_the_version_says(
    deployment: str, version: str, expected: bool, reason: str
) -> None:
    assert is_dalle(deployment, version) is expected, reason


TOKENS = [("low", "1024x1024", 272), ("medium", "1024x1536", 1584), ("high", "1536x1024", 6240), ("auto", "auto", 4160)]


@pytest.mark.parametrize(("quality", "size", "tokens"), TOKENS)
def test_usage_adds_up(quality: str, size: str, tokens: int) -> None:
    document: dict[str, Any] = gpt(written(quality=quality, size=size, n=3)).document(0, [])
    usage = document["usage"]
    assert usage["output_tokens"] == 3 * tokens
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(usage["input_tokens_details"].values())
