"""The bytes of a request: empty, encodings, JSON errors, repeated keys."""

from __future__ import annotations

import logging

import pytest

from imagegen.errors import RequestError
from imagegen.web.http import HttpError, Request
from imagegen.web.json_body import EXAMPLE, read_json

BODY = {"prompt": "ein Schiff über Köln"}
TEXT = '{"prompt": "ein Schiff über Köln"}'


def read(body: bytes | str, content_type: str = "application/json") -> object:
    content = body if isinstance(body, bytes) else body.encode()
    return read_json(Request("POST", "https://x", {"content-type": content_type}, {}, {}, content))


def refusal(body: bytes | str, content_type: str = "application/json") -> RequestError:
    with pytest.raises(RequestError) as refused:
        read(body, content_type)
    return refused.value


@pytest.mark.parametrize(
    ("codec", "charset"),
    [
        ("utf-8", "utf-8"),
        ("utf-8", '"UTF8"'),
        ("utf-8-sig", "utf-8"),  # SharePoint and .NET send a byte order mark
        ("utf-16", "utf-16"),
        ("utf-16-le", "utf-16"),  # StringContent of .NET has no mark
        ("utf-16-be", "UTF-16"),
        ("utf-16-le", '"utf-16le"'),
        ("utf-16-be", "utf_16be"),
        ("utf-16", "utf-16be"),  # little-endian, as its mark says
        ("utf-32", "utf-32"),
        ("utf-32-le", "UTF32"),
        ("utf-32-be", "utf-32be"),
        ("latin-1", "iso-8859-1"),
        ("cp1252", "windows-1252"),
        ("utf-8-sig", "iso-8859-1"),  # the mark is stronger
    ],
)
def test_declared_encoding_is_read(codec: str, charset: str) -> None:
    assert read(TEXT.encode(codec), f"application/json; charset={charset}") == BODY


@pytest.mark.parametrize(
    "content_type", ["application/json", "application/json; charset=", "application/json;x=utf-16"]
)
@pytest.mark.parametrize("codec", ["utf-8", "utf-8-sig"])
def test_mark_of_utf_8_needs_no_charset(codec: str, content_type: str) -> None:
    assert read(TEXT.encode(codec), content_type) == BODY


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=iso-8859-1"])
@pytest.mark.parametrize("codec", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"])
def test_undeclared_encoding_is_named(codec: str, charset: str) -> None:
    error = refusal(TEXT.encode(codec), f"application/json{charset}")
    family = codec[:6]
    assert error.code == "invalidJson"
    assert f"looks like {family.upper()}" in error.message
    assert f"write charset={family} in the Content-Type" in error.message


@pytest.mark.parametrize(("codec", "charset"), [("utf-8", "utf-16"), ("utf-8", "utf-32"), ("utf-16", "utf-32")])
def test_wrong_charset_is_named(codec: str, charset: str) -> None:
    assert f"charset={charset}" in refusal(TEXT.encode(codec), f"application/json; charset={charset}").message


@pytest.mark.parametrize("charset", ["klingon", "zip", "unicode_escape", "utf-7", "x" * 10_000, "\u00fc", "a\tb"])
def test_unknown_charset_is_415_and_named(charset: str) -> None:
    error = refusal(TEXT, f'application/json; charset="{charset}"')
    assert isinstance(error, HttpError)
    assert error.status == 415
    assert "is not supported. Send UTF-8" in error.message
    assert len(error.message) < 200
    assert error.message.isprintable()
    assert charset.isprintable() is (charset[:40] in error.message)


@pytest.mark.parametrize(
    ("parameter", "shown"),
    [
        ("charset*=utf-8''utf%0A16", r"charset=utf\n16, but"),  # a header can have any character in this form
        ("charset*=utf-8''utf%E2%80%AE16", r"charset=utf\u202e16, but"),
        (f"charset=utf{'-' * 10_000}16", f"charset=utf{'-' * 37}, but"),
    ],
)
def test_known_charset_in_a_hostile_form_stays_short_and_on_one_line(parameter: str, shown: str) -> None:
    message = refusal(TEXT, f"application/json; {parameter}").message
    assert shown in message
    assert message.isprintable()
    assert len(message) < 200


def test_invalid_utf_8_shows_its_place() -> None:
    message = refusal('{"prompt": "Köln"}'.encode("latin-1")).message
    assert message.startswith('The body is not valid UTF-8 at byte 14, after `rompt": "K`. Send UTF-8')
    assert refusal(b"\xef\xbb\xbf\xff").message.startswith("The body is not valid UTF-8 at byte")


@pytest.mark.parametrize(
    ("charset", "body", "place"),
    [
        ("windows-1252", b'{"prompt": "\x81"}', 'WINDOWS-1252 at byte 13, after `prompt": "`'),
        ("utf-16", TEXT.encode("utf-16")[:-1], "UTF-16 at byte 69, after"),  # cut
        ("utf-8", TEXT.encode("latin-1"), "UTF-8 at byte"),
    ],
)
def test_hint_does_not_advise_the_declared_charset(charset: str, body: bytes, place: str) -> None:
    message = refusal(body, f"application/json; charset={charset}").message
    assert message.startswith(f"The body is not valid {place}")
    assert message.endswith(". Correct the bytes there, or the charset in the Content-Type.")


@pytest.mark.parametrize("charset", ["", "; charset=utf-8", "; charset=utf-16", "; charset=utf-32"])
@pytest.mark.parametrize("body", ["", " \r\n\t"])
def test_empty_body_is_named_with_an_example(body: str, charset: str) -> None:
    message = f"The body is empty. Send a JSON object such as {EXAMPLE}."
    assert refusal(body, f"application/json{charset}").message == message
    assert refusal(body.encode("utf-16"), "application/json; charset=utf-16").message == message
    assert refusal(body.encode("utf-8-sig")).message == message


@pytest.mark.parametrize(
    ("body", "place", "hint"),
    [
        ('{"prompt": \u201cx\u201d}', (1, 12), "curly quotes"),
        ('{\u201cprompt\u201d: "x"}', (1, 2), "curly quotes"),
        ("{'prompt': 'x'}", (1, 2), "single quotes"),
        ('{"prompt": "x",}', (1, 15), "Remove the comma"),
        ('{\n "prompt": "x"\n "n": 1}', (3, 2), "a comma between two fields"),
        ('{"prompt": "say "hi""}', (1, 18), 'Write a quote inside a text as \\"'),
        ('{"prompt": "a\nb"}', (1, 14), "Write a line break inside a text as \\n"),
        ('{"prompt": "C:\\x"}', (1, 15), "Write a backslash inside a text as \\\\"),
        ('{"prompt": "x', (1, 12), "Close this text"),
        ('{"prompt": "x"', (1, 15), "The end is missing"),
        ('{"prompt": "x"} {}', (1, 17), "nothing after it"),
        ('{prompt: "x"}', (1, 2), "Put each field name in double quotes"),
        ('{"n": 1 // one\n}', (1, 9), "Remove the comment"),
        ('{"n": True}', (1, 7), "true, false and null"),
        ('{"n": @}', (1, 7), "Check the quotes"),
        (
            '{"prompt": "a", "n": }',
            (1, 22),
            "A value is missing after the colon. Is the dynamic content empty? Send null",
        ),
        ('{"prompt": , "n": 1}', (1, 12), "or leave the field out."),
        ("prompt=x", (1, 1), f"Send a JSON object such as {EXAMPLE}"),
        # What json.loads of Python accepts.
        ('{"prompt": "\u00e4", "n": NaN}', (1, 22), "no NaN"),
        ('{"n": ' + "9" * 5_000 + "}", (1, 4_308), "thousands of digits"),
        ('{"prompt":\n"\\ud83d"}', (2, 8), "both halves"),
        # Deeper than json.loads can go, after the place of the error.
        ('{"a": NaN, "b": ' + "[" * 100_000, (1, 7), "no NaN"),
        ('{"a": "\\ud800", "b": ' + "[" * 100_000, (1, 14), "both halves"),
    ],
)
def test_json_error_shows_its_place_and_a_hint(body: str, place: tuple[int, int], hint: str) -> None:
    error = refusal(body)
    line, column = place
    assert error.code == "invalidJson"
    assert error.message.startswith(f"The body is not valid JSON at line {line}, column {column}, near `")
    assert hint in error.message
    assert error.message.isprintable()


def test_json_error_shows_ten_characters_on_both_sides() -> None:
    message = refusal('{"prompt": "0123456789", abcdefghijklmnop}').message
    assert 'near `3456789", abcdefghij`.' in message


@pytest.mark.parametrize("body", ["[" * 100_000, '{"a":' * 300 + "1" + "}" * 300])
def test_deep_body_is_refused(body: str) -> None:
    assert "too many levels" in refusal(body).message


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ('{"prompt": "first", "prompt": "last"}', "prompt"),
        ('{"n": 1, "\\u006e": 1}', "n"),  # the same key, spelled in two ways
        ('{"prompt": "x", "metadata": {"a": "1", "a": "2"}}', "a"),
        ('{"a": [[{"b": {"c": 1, "c": 1}}]]}', "c"),
        ('{"a": 1, "promt": 2, "promt": 3}', "promt"),
    ],
)
def test_repeated_key_is_named(body: str, name: str) -> None:
    error = refusal(body)
    assert error.code == "invalidPayload"
    assert [problem.field for problem in error.problems] == [name]
    assert error.message == f"{name}: occurs twice in one object. Send it once."


@pytest.mark.parametrize("key", ["a\x85b", "a\u2028b", "a\x7fb", "a\u202eb"])
def test_repeated_key_stays_on_one_line(key: str) -> None:
    [problem] = refusal(f'{{"{key}": 1, "{key}": 2}}').problems
    assert problem.field == key.encode("unicode_escape").decode()


@pytest.mark.parametrize("number", ["1e999", "-1e400", "9" * 400 + ".0"])
def test_number_that_is_too_large_is_named(number: str) -> None:
    error = refusal(f'{{"prompt": {number}}}')
    assert error.code == "invalidJson"
    assert error.message == f"The number {number[:40]} is too large for JSON. Send a smaller one, or text in quotes."
    assert read('{"n": 1e308, "m": 1e-999}') == {"n": 1e308, "m": 0.0}


def test_answer_to_many_repeated_keys_is_short() -> None:
    keys = ", ".join(f'"{"k" * 500}{number}": 1, "{"k" * 500}{number}": 1' for number in range(200))
    assert len(refusal(f"{{{keys}}}").message) < 4_000


def test_same_key_in_two_objects_is_accepted() -> None:
    assert read('{"a": {"b": 1}, "c": [{"b": 1}, {"b": 2}]}') == {"a": {"b": 1}, "c": [{"b": 1}, {"b": 2}]}


@pytest.mark.parametrize(
    "body", [b"", b'{"prompt": "a secret', b'{"a": 1, "a": 2}', b"\xff", '{"p": 1}'.encode("utf-16")]
)
def test_refused_body_is_not_logged(body: bytes, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        refusal(body)
    assert caplog.text == ""
