"""Which requests the direct APIs accept, and how they report the others."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from local.emulator.dalle import DalleRequest
from local.emulator.deployment_route import is_dalle
from local.emulator.direct import DirectRequest
from local.emulator.errors import ServiceError
from local.emulator.flux import FluxRequest
from local.emulator.gpt_image import GptImageRequest
from local.emulator.mai import MaiRequest
from local.emulator.validation import parse_object, validate

type Read = Callable[[bytes], DirectRequest]


def reader(kind: type[DirectRequest], **fields: str) -> Read:
    """Return a function that reads a body, completed by the fields that the route adds."""
    return lambda body: validate(kind, parse_object(body, kind.errors) | fields, kind.errors)


gpt = reader(GptImageRequest, model="gpt-image-1.5")
gpt2 = reader(GptImageRequest, model="gpt-image-2")
gpt_v1 = reader(GptImageRequest)
dalle = reader(DalleRequest, model="dall-e-3")
flux = reader(FluxRequest)
mai = reader(MaiRequest)


def body(**fields: object) -> bytes:
    return json.dumps({"prompt": "x", **fields}).encode()


REFUSED: list[tuple[Read, bytes, str, str | None, str]] = [
    (gpt, b"", "invalid_json", None, "no body"),
    (gpt, b"\xff{}", "invalid_json", None, "not UTF-8"),
    (gpt, b"[" * 100_000, "invalid_json", None, "nested too deeply"),
    (gpt, b"[]", "invalid_json", None, "not an object"),
    (gpt, b"{}", "missing_required_parameter", "prompt", "no prompt"),
    (gpt, body(prompt=None), "missing_required_parameter", "prompt", "null is absent"),
    (gpt, body(prompt=""), "empty_string", "prompt", "an empty prompt"),
    (gpt, body(prompt="x" * 32_001), "string_above_max_length", "prompt", "a prompt of 32,001"),
    (gpt, body(prompt=7), "invalid_type", "prompt", "a prompt that is not a string"),
    (gpt, b'{"prompt": "\\ud800"}', "invalid_value", "prompt", "half of a surrogate pair"),
    (gpt_v1, body(), "missing_required_parameter", "model", "v1 needs the model"),
    (gpt_v1, body(model=7), "invalid_type", "model", "a model that is not a string"),
    (gpt, body(response_format="b64_json"), "unknown_parameter", "response_format", "always base64"),
    (gpt, body(response_format=None), "unknown_parameter", "response_format", "an unknown field with null"),
    (gpt, body(style="vivid"), "unknown_parameter", "style", "a field of DALL·E"),
    (gpt, body(width=1024), "unknown_parameter", "width", "a field of FLUX"),
    (gpt, body(n=0), "integer_below_min_value", "n", "n too small"),
    (gpt, body(n=11), "integer_above_max_value", "n", "n too large"),
    (gpt, body(n="1"), "invalid_type", "n", "n is a string"),
    (gpt, body(n=1.0), "invalid_type", "n", "n is a float"),
    (gpt, body(n=True), "invalid_type", "n", "n is a boolean"),
    (gpt, body(n=[]), "invalid_type", "n", "n is an array"),
    (gpt, body(size="512x512"), "invalid_value", "size", "a size of an older API"),
    (gpt, body(size="1792x1024"), "invalid_value", "size", "a size of DALL·E"),
    (gpt, body(size="2048x2048"), "invalid_value", "size", "a size of gpt-image-2"),
    (gpt, body(size=1024), "invalid_type", "size", "a size that is not a string"),
    (gpt2, body(size="1000x1024"), "invalid_value", "size", "not a multiple of 16"),
    (gpt2, body(size="3856x1600"), "invalid_value", "size", "a long edge over 3840"),
    (gpt2, body(size="3840x1264"), "invalid_value", "size", "more than three to one"),
    (gpt2, body(size="3840x2176"), "invalid_value", "size", "too many pixels"),
    (gpt2, body(size="512x512"), "invalid_value", "size", "too few pixels"),
    (gpt2, body(size="big"), "invalid_value", "size", "not a size"),
    (gpt, body(quality="hd"), "invalid_value", "quality", "a quality of DALL·E"),
    (gpt, body(quality=1), "invalid_type", "quality", "a quality that is not a string"),
    (gpt, body(output_format="webp"), "invalid_value", "output_format", "OpenAI has WebP, Azure does not"),
    (gpt, body(output_compression=80), "invalid_png_output_compression", None, "compression of a PNG"),
    (gpt, body(output_compression=101), "integer_above_max_value", "output_compression", "101 % of a PNG"),
    (gpt, body(output_compression=101, output_format="jpeg"), "integer_above_max_value", "output_compression", "101 %"),
    (gpt, body(background="white"), "invalid_value", "background", "an unknown background"),
    (gpt, body(background="transparent", output_format="jpeg"), "invalid_value", "background", "a transparent JPEG"),
    (gpt, body(user=7), "invalid_type", "user", "user is not a string"),
    (gpt, b'{"prompt": "x", "user": "\\ud800"}', "invalid_value", "user", "half of a surrogate pair in user"),
    (gpt, body(n=0, style="vivid"), "unknown_parameter", "style", "unknown fields come first"),
    (dalle, body(n=2), "integer_above_max_value", "n", "two images at once"),
    (dalle, body(prompt="x" * 4001), "string_above_max_length", "prompt", "a prompt of 4,001"),
    (dalle, body(size="512x512"), "invalid_value", "size", "a size of DALL·E 2"),
    (dalle, body(size="auto"), "invalid_value", "size", "a size of gpt-image"),
    (dalle, body(quality="high"), "invalid_value", "quality", "a quality of gpt-image"),
    (dalle, body(style="plain"), "invalid_value", "style", "an unknown style"),
    (dalle, body(response_format="png"), "invalid_value", "response_format", "an unknown response_format"),
    (dalle, body(output_format="png"), "unknown_parameter", "output_format", "a field of gpt-image"),
]


@pytest.mark.parametrize(("read", "text", "code", "param", "reason"), REFUSED, ids=[row[4] for row in REFUSED])
def test_openai_error_names_code_and_parameter(
    read: Read, text: bytes, code: str, param: str | None, reason: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        read(text)
    assert (refused.value.status, refused.value.code, refused.value.fields["param"]) == (400, code, param), reason


MESSAGES = [
    (body(response_format="b64_json"), "Unknown parameter: 'response_format'."),
    (body(prompt=None), "Missing required parameter: 'prompt'."),
    (body(n=11), "Invalid 'n': integer above maximum value. Expected a value <= 10, but got 11 instead."),
    (body(n="1"), "Invalid type for 'n': expected an integer, but got a string instead."),
    (body(quality="hd"), "Invalid value: 'hd'. Supported values are: 'low', 'medium', 'high' and 'auto'."),
    (body(size="1x1"), "Invalid value: '1x1'. Supported values are: '1024x1024', '1024x1536', '1536x1024' and 'auto'."),
]


@pytest.mark.parametrize(("text", "message"), MESSAGES)
def test_openai_error_has_the_messages_of_the_service(text: bytes, message: str) -> None:
    with pytest.raises(ServiceError) as refused:
        gpt(text)
    body = refused.value.body()
    assert body.keys() == {"message", "type", "param", "code"}
    assert (body["message"], body["type"]) == (message, "invalid_request_error")


FOUNDRY_REFUSED: list[tuple[Read, bytes, str]] = [
    (flux, body(), "FLUX needs the model"),
    (flux, body(model="f", n=1), "FLUX has num_images"),
    (flux, body(model="f", size="1024x1024"), "FLUX has width and height"),
    (flux, body(model="f", num_images=5), "more than four images"),
    (flux, body(model="f", width=255), "too narrow"),
    (flux, body(model="f", height=2049), "too tall"),
    (flux, body(model="f", width="1024"), "a string"),
    (flux, body(model="f", output_format="webp"), "an unknown format"),
    (flux, body(model="f", seed=1.5), "a seed that is not an integer"),
    (mai, body(), "MAI needs the model"),
    (mai, body(model="m", n=1), "MAI makes one image"),
    (mai, body(model="m", size="1024x1024"), "MAI has width and height"),
    (mai, body(model="m", response_format="b64_json"), "always base64"),
    (mai, body(model="m", height=767), "a side that is too short"),
    (mai, body(model="m", width=1040), "too many pixels"),
    (mai, body(model="MAI-Image-2.6", width=1537, height=1536), "too many pixels for 2.6"),
    (mai, b"no json", "not JSON"),
]


@pytest.mark.parametrize(("read", "text", "reason"), FOUNDRY_REFUSED, ids=[row[2] for row in FOUNDRY_REFUSED])
def test_foundry_has_one_code_for_invalid_requests(read: Read, text: bytes, reason: str) -> None:
    with pytest.raises(ServiceError) as refused:
        read(text)
    code = "BadRequest" if read is flux else "unsupported_request_value"
    assert (refused.value.status, refused.value.code) == (400, code), reason
    assert "param" not in refused.value.fields


def test_mai_repeats_the_message_in_details() -> None:
    with pytest.raises(ServiceError) as refused:
        mai(body(model="m", width=1024, height=1025))
    message = (
        "Model does not support request parameter value supplied: 'width' x 'height' must be at most 1048576 pixels."
    )
    assert refused.value.body() == {"code": "unsupported_request_value", "message": message, "details": message}


ACCEPTED: list[tuple[Read, dict[str, object], dict[str, object], str]] = [
    (gpt, {}, {"count": 1, "width": 1024, "height": 1024, "format": "PNG", "transparent": False}, "the defaults"),
    (gpt, {"prompt": "\N{AVOCADO}" * 32_000}, {}, "characters, not bytes"),
    (gpt, {"n": 10, "size": "1536x1024"}, {"count": 10, "width": 1536, "height": 1024}, "the most images"),
    (gpt, {"n": None, "quality": None}, {"count": 1}, "null is absent"),
    (gpt, {"output_format": "jpeg"}, {"format": "JPEG", "quality": 100}, "a JPEG"),
    (gpt, {"output_format": "jpeg", "output_compression": 0}, {"format": "JPEG", "quality": 0}, "a small JPEG"),
    (gpt, {"background": "transparent"}, {"transparent": True}, "a transparent PNG"),
    (gpt2, {"size": "3840x2160"}, {"width": 3840, "height": 2160}, "the most pixels"),
    (gpt2, {"size": "1280x512"}, {"width": 1280, "height": 512}, "the fewest pixels"),
    (gpt2, {"size": "3840x1280"}, {"width": 3840, "height": 1280}, "three to one"),
    (gpt2, {"size": "auto"}, {"width": 1024, "height": 1024}, "auto"),
    (dalle, {"size": "1792x1024", "n": 1}, {"width": 1792, "height": 1024, "count": 1}, "DALL·E"),
    (flux, {"model": "f"}, {"count": 1, "width": 1024, "height": 1024, "format": "PNG"}, "the defaults of FLUX"),
    (flux, {"model": "f", "num_images": 4, "width": 256, "height": 2048, "seed": -1}, {"count": 4}, "the most"),
    (flux, {"model": "f", "output_format": "jpeg"}, {"format": "JPEG"}, "FLUX as a JPEG"),
    (mai, {"model": "m"}, {"count": 1, "width": 1024, "height": 1024}, "the defaults of MAI"),
    (mai, {"model": "m", "width": 768, "height": 1365}, {"width": 768, "height": 1365}, "the most pixels of MAI"),
    (mai, {"model": "mai-image-2.6-flash", "width": 1536, "height": 1536}, {"width": 1536}, "2.6 makes larger ones"),
]


@pytest.mark.parametrize(("read", "fields", "expected", "reason"), ACCEPTED, ids=[row[3] for row in ACCEPTED])
def test_valid_request_becomes_drawings(
    read: Read, fields: dict[str, object], expected: dict[str, object], reason: str
) -> None:
    drawings = read(body(**fields)).drawings()
    assert [drawing.index for drawing in drawings] == list(range(drawings[0].count))
    for drawing in drawings:
        assert {name: getattr(drawing, name) for name in expected} == expected, reason


URLS: list[tuple[Read, dict[str, object], bool]] = [
    (gpt, {}, False),
    (dalle, {}, True),
    (dalle, {"response_format": "b64_json", "quality": "hd"}, False),
    (flux, {"model": "f"}, False),
    (flux, {"model": "f", "prompt": "[url]"}, True),
    (mai, {"model": "m", "prompt": "[url]"}, False),
]


@pytest.mark.parametrize(("read", "fields", "expected"), URLS)
def test_urls_instead_of_base64_on_request(read: Read, fields: dict[str, object], expected: bool) -> None:
    assert read(body(**fields)).wants_urls is expected


KINDS = [
    ("dall-e-3", "2024-10-21", True, "by its name"),
    ("Dalle3", "2025-04-01-preview", True, "by its name, in the latest version too"),
    ("gpt-image-1", "2025-04-01-preview", False, "by its name"),
    ("gpt-image-1", "2024-10-21", False, "by its name, even if the version does not support it"),
    ("images", "2024-10-21", True, "by the version"),
    ("images", "2025-04-01-preview", False, "by the version"),
]


@pytest.mark.parametrize(("deployment", "version", "expected", "reason"), KINDS)
def test_deployment_name_or_version_selects_the_model(
    deployment: str, version: str, expected: bool, reason: str
) -> None:
    assert is_dalle(deployment, version) is expected, reason


TOKENS = [("low", "1024x1024", 272), ("medium", "1024x1536", 1584), ("high", "1536x1024", 6240), ("auto", "auto", 4160)]


@pytest.mark.parametrize(("quality", "size", "tokens"), TOKENS)
def test_usage_adds_up(quality: str, size: str, tokens: int) -> None:
    response: dict[str, Any] = gpt(body(quality=quality, size=size, n=3)).response_body(0, [])
    usage = response["usage"]
    assert usage["output_tokens"] == 3 * tokens
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"]
    assert usage["input_tokens"] == sum(usage["input_tokens_details"].values())


def test_auto_is_replaced_by_the_choice() -> None:
    response = gpt(body()).response_body(0, [])
    assert (response["quality"], response["background"], response["size"]) == ("high", "opaque", "1024x1024")
