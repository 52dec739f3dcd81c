"""Faults on request: words in square brackets in the prompt. An unknown word is plain text."""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["none", "seconds", "index", "number", "word", "origin", "url"]

# Patterns of the arguments. If an argument does not match, the brackets are plain text.
_SHAPES: dict[Kind, str] = {
    "none": r"(?!)",
    "seconds": r"\d+(\.\d+)?",
    "index": r"\d+",
    "number": r"\d{1,12}",
    "word": r"[\x21-\x7e]+",
    "origin": r"https?://[\x21-\x2e\x30-\x7e]+",
    "url": r"https?://[\x21-\x7e]+",
}
_BRACKETS = re.compile(r"\[([A-Za-z0-9-]+)(?::([^\[\]]*))?\]")
_MAX_COUNTS = 10_000


@dataclass(frozen=True)
class FaultWord:
    """One row of the table in docs/emulator.md."""

    name: str
    effect: str
    argument: Kind = "none"
    counted: bool = False  # accepts :N, the first N tries only
    optional: bool = False  # the argument may be absent

    @property
    def usage(self) -> str:
        """Return the forms in which the word can be written."""
        argument = "" if self.argument == "none" else f":{self.argument.upper()}"
        forms = ([self.name] if self.optional else []) + [self.name + argument]
        forms += [f"{self.name}{argument}:N"] if self.counted else []
        return " or ".join(f"[{form}]" for form in forms)


WORDS: dict[str, FaultWord] = {
    word.name: word
    for word in (
        FaultWord("submit-400", "submit: 400 invalidPayload", counted=True),
        FaultWord("submit-401", "submit: 401, as with a wrong key", counted=True),
        FaultWord("submit-403", "submit: 403 forbidden", counted=True),
        FaultWord("submit-429", "submit: 429 tooManyRequests with retry-after", counted=True),
        FaultWord("submit-500", "submit: 500 internalFailure, no operation is created", counted=True),
        FaultWord("submit-no-location", "submit: 202 without operation-location", counted=True),
        FaultWord("submit-hang", "submit: the operation is created, the response is delayed", "seconds", counted=True),
        FaultWord("submit-drop", "submit: the operation is created, the connection is reset", counted=True),
        FaultWord("location-elsewhere", "operation-location points to http://localhost.invalid"),
        FaultWord("location-origin", "operation-location points to this scheme, host and port", "origin"),
        FaultWord("seconds", "duration of the operation or call, regardless of --speed", "seconds"),
        FaultWord("never", "the operation stays running forever"),
        FaultWord(
            "contentFilter",
            "the operation fails, or the call is refused with 400: contentFilter or this code, with details",
            "word",
            optional=True,
        ),
        FaultWord("failed", "the operation fails with this code", "word"),
        FaultWord("status", "polls show this status word, in this case", "word", counted=True),
        FaultWord("poll-404", "poll: 404 notFound", counted=True),
        FaultWord("poll-429", "poll: 429 tooManyRequests with retry-after", counted=True),
        FaultWord("poll-500", "poll: 500 internalFailure", counted=True),
        FaultWord("poll-garbage", "poll: 200 with a body that is not JSON", counted=True),
        FaultWord("poll-drop", "poll: the connection is reset", counted=True),
        FaultWord("retry-after", "value of every Retry-After", "word"),
        FaultWord("poll-retry-date", "poll: Retry-After is an HTTP date"),
        FaultWord("poll-no-retry-after", "poll: no Retry-After"),
        FaultWord("no-created", "result.created is missing"),
        FaultWord("call-401", "call: 401, as with a wrong key", counted=True),
        FaultWord("call-403", "call: 403, as from outside the network rules of the resource", counted=True),
        FaultWord("call-blocked", "call: 403, the whole resource is temporarily blocked", counted=True),
        FaultWord("call-404", "call: 404 DeploymentNotFound", counted=True),
        FaultWord("call-408", "call: 408 Timeout, not billed", counted=True),
        FaultWord("call-429", "call: 429 with retry-after and retry-after-ms", counted=True),
        FaultWord("call-500", "call: 500, not billed", counted=True),
        FaultWord("call-502", "call: 502 with the HTML of a gateway, not billed", counted=True),
        FaultWord("call-503", "call: 503, not billed", counted=True),
        FaultWord("call-hang", "call: billed, the response is delayed by this time", "seconds", counted=True),
        FaultWord("call-drop", "call: billed, the connection is reset", counted=True),
        FaultWord("call-cut", "call: billed, the response ends in the middle", counted=True),
        FaultWord("call-garbage", "call: billed, 200 with a body that is not JSON", counted=True),
        FaultWord("call-no-retry-after", "call: 429 without retry-after and retry-after-ms"),
        FaultWord(
            "retry-after-ms", "call: value of retry-after-ms; removes retry-after unless the prompt sets it too", "word"
        ),
        FaultWord("bytes", "pads each PNG to this size, at most 256 MiB", "number"),
        FaultWord("url", "call, FLUX only: data[] holds a url instead of b64_json"),
        FaultWord("image-error", "result.data[INDEX] is a contentFilter error, the others are URLs", "index"),
        FaultWord("image-404", "image: 404 BlobNotFound", counted=True),
        FaultWord("image-403", "image: 403 AuthenticationFailed, as after expiry", counted=True),
        FaultWord("image-500", "image: 500 InternalError", counted=True),
        FaultWord("image-truncated", "image: half of the bytes that Content-Length promises", counted=True),
        FaultWord("image-html", "image: 200 with an HTML login page", counted=True),
        FaultWord("image-empty", "image: 200 without a body", counted=True),
        FaultWord("image-huge", "image: 200 MiB without Content-Length"),
        FaultWord("image-slow", "image: the bytes arrive slowly, over this time", "seconds"),
        FaultWord("image-redirect", "image: 302 to this URL", "url"),
        FaultWord("image-jpeg", "image: a JPEG, although the URL ends in .png"),
        FaultWord("image-webp", "image: a WebP, although the URL ends in .png"),
    )
}


@dataclass(frozen=True)
class Fault:
    """One fault that a prompt asks for."""

    word: str
    argument: str = ""
    times: int | None = None  # number of tries; None: all

    @property
    def seconds(self) -> float:
        return float(self.argument)


@dataclass(frozen=True)
class Faults:
    """The faults that one prompt asks for, in its order."""

    asked: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, prompt: str) -> Self:
        found = (_read(name, rest) for name, rest in _BRACKETS.findall(prompt))
        return cls(tuple(fault for fault in found if fault is not None))

    def get(self, word: str) -> Fault | None:
        """Return the first fault of this word."""
        return next(self.all(word), None)

    def all(self, word: str) -> Iterator[Fault]:
        return (fault for fault in self.asked if fault.word == word)

    def __contains__(self, word: str) -> bool:
        return self.get(word) is not None


def _read(name: str, rest: str) -> Fault | None:
    word = WORDS.get(name)
    if word is None:
        return None
    argument, times = rest, None
    if word.counted:
        head, colon, tail = rest.rpartition(":")
        if tail.isdecimal() and (colon or word.argument == "none"):
            argument, times = head, int(tail)
    if not argument and (word.optional or word.argument == "none"):
        return Fault(name, times=times)
    return Fault(name, argument, times) if re.fullmatch(_SHAPES[word.argument], argument) else None


class FaultCounts:
    """How often each fault was applied in each scope: to a request, an operation or an image."""

    def __init__(self) -> None:
        self._counts: OrderedDict[tuple[str, Fault], int] = OrderedDict()

    def next(self, scope: str, faults: Faults, words: Collection[str]) -> Fault | None:
        """Return and count the first of these faults that has tries left."""
        for fault in faults.asked:
            if fault.word in words and self.left(scope, fault):
                self.count(scope, fault)
                return fault
        return None

    def left(self, scope: str, fault: Fault) -> bool:
        """Whether the fault applies to the next try."""
        return fault.times is None or self._counts.get((scope, fault), 0) < fault.times

    def count(self, scope: str, fault: Fault) -> None:
        """Count one try. Beyond 10,000 counts, the least recently used is dropped."""
        if fault.times is None:
            return
        self._counts[scope, fault] = self._counts.pop((scope, fault), 0) + 1
        if len(self._counts) > _MAX_COUNTS:
            self._counts.popitem(last=False)
