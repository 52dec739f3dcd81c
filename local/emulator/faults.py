"""Failures on request: words in square brackets in the prompt. An unknown word is plain text."""

import re
from collections import OrderedDict
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Literal, Self

Kind = Literal["none", "seconds", "index", "number", "word", "origin", "url"]

# What an argument looks like; one that does not look so makes the brackets plain text.
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
_MOST_COUNTS = 10_000


@dataclass(frozen=True)
class Word:
    """One row of the table: how the word is written and what it does."""

    name: str
    does: str
    argument: Kind = "none"
    counted: bool = False  # takes :N, "the first N tries only"
    optional: bool = False  # may come without its argument

    @property
    def usage(self) -> str:
        """As a user writes it."""
        argument = "" if self.argument == "none" else f":{self.argument.upper()}"
        forms = ([self.name] if self.optional else []) + [self.name + argument]
        forms += [f"{self.name}{argument}:N"] if self.counted else []
        return " or ".join(f"[{form}]" for form in forms)


WORDS: dict[str, Word] = {
    word.name: word
    for word in (
        Word("submit-400", "submit: 400 invalidPayload", counted=True),
        Word("submit-401", "submit: 401, as with a wrong key", counted=True),
        Word("submit-403", "submit: 403 forbidden", counted=True),
        Word("submit-429", "submit: 429 tooManyRequests with retry-after", counted=True),
        Word("submit-500", "submit: 500 internalFailure, nothing is created", counted=True),
        Word("submit-no-location", "submit: 202 without operation-location", counted=True),
        Word("submit-hang", "submit: the operation is created, the answer comes late", "seconds", counted=True),
        Word("submit-drop", "submit: the operation is created, the answer is lost", counted=True),
        Word("location-elsewhere", "operation-location is on http://localhost.invalid"),
        Word("location-origin", "operation-location is on that scheme, host and port", "origin"),
        Word("seconds", "the operation or call takes so long, whatever --speed says", "seconds"),
        Word("never", "the operation stays running for ever"),
        Word(
            "contentFilter",
            "the operation fails, the call answers 400: contentFilter or that code, with its details",
            "word",
            optional=True,
        ),
        Word("failed", "the operation fails with that code", "word"),
        Word("status", "polls show that status word literally, its case as given", "word", counted=True),
        Word("poll-404", "poll: 404 notFound", counted=True),
        Word("poll-429", "poll: 429 tooManyRequests with retry-after", counted=True),
        Word("poll-500", "poll: 500 internalFailure", counted=True),
        Word("poll-garbage", "poll: 200 with a body that is not JSON", counted=True),
        Word("poll-drop", "poll: the connection is closed without an answer", counted=True),
        Word("retry-after", "every Retry-After says that", "word"),
        Word("poll-retry-date", "poll: Retry-After is an HTTP date"),
        Word("poll-no-retry-after", "poll: no Retry-After"),
        Word("no-created", "result.created is missing"),
        Word("call-401", "call: 401, as with a wrong key", counted=True),
        Word("call-403", "call: 403, as from outside the resource's network rules", counted=True),
        Word("call-blocked", "call: 403 temporarily blocked, meaning the whole resource", counted=True),
        Word("call-404", "call: 404 DeploymentNotFound", counted=True),
        Word("call-408", "call: 408 Timeout, nothing is made", counted=True),
        Word("call-429", "call: 429 with retry-after and retry-after-ms", counted=True),
        Word("call-500", "call: 500, nothing is made", counted=True),
        Word("call-502", "call: 502 with a gateway's HTML, nothing is made", counted=True),
        Word("call-503", "call: 503, nothing is made", counted=True),
        Word("call-hang", "call: made and billed, the answer comes that much later", "seconds", counted=True),
        Word("call-drop", "call: made and billed, the answer is lost", counted=True),
        Word("call-cut", "call: made and billed, the answer breaks off in the middle", counted=True),
        Word("call-garbage", "call: made and billed, 200 with a body that is not JSON", counted=True),
        Word("call-no-retry-after", "call: 429 without retry-after and retry-after-ms"),
        Word("retry-after-ms", "call: retry-after-ms says that, alone unless retry-after is asked for too", "word"),
        Word("bytes", "each PNG is padded to so many bytes, 256 MiB at most", "number"),
        Word("url", "call, FLUX only: data[] holds a url in place of b64_json"),
        Word("image-error", "result.data[INDEX] is a contentFilter error, the others are urls", "index"),
        Word("image-404", "image: 404 BlobNotFound", counted=True),
        Word("image-403", "image: 403 AuthenticationFailed, as when expired", counted=True),
        Word("image-500", "image: 500 InternalError", counted=True),
        Word("image-truncated", "image: half of what Content-Length promises, then closed", counted=True),
        Word("image-html", "image: 200 with an HTML login page", counted=True),
        Word("image-empty", "image: 200 with no bytes", counted=True),
        Word("image-huge", "image: 200 MiB without Content-Length"),
        Word("image-slow", "image: the bytes trickle over that time", "seconds"),
        Word("image-redirect", "image: 302 to that URL", "url"),
        Word("image-jpeg", "image: a JPEG, though the URL says .png"),
        Word("image-webp", "image: a WebP, though the URL says .png"),
    )
}


@dataclass(frozen=True)
class Fault:
    """One failure asked for."""

    word: str
    argument: str = ""
    times: int | None = None  # the first so many tries; None: always

    @property
    def seconds(self) -> float:
        """The argument as a duration."""
        return float(self.argument)


@dataclass(frozen=True)
class Faults:
    """The failures one prompt asks for, in the order it asks."""

    asked: tuple[Fault, ...] = ()

    @classmethod
    def parse(cls, prompt: str) -> Self:
        """Read the prompt's brackets."""
        found = (_read(name, rest) for name, rest in _BRACKETS.findall(prompt))
        return cls(tuple(fault for fault in found if fault is not None))

    def get(self, word: str) -> Fault | None:
        """The first fault of that word."""
        return next(self.all(word), None)

    def all(self, word: str) -> Iterator[Fault]:
        """Every fault of that word."""
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
    """How often each fault struck. A scope is what N counts for: a request, an operation, an image."""

    def __init__(self) -> None:
        self._struck: OrderedDict[tuple[str, Fault], int] = OrderedDict()

    def next(self, scope: str, faults: Faults, words: Collection[str]) -> Fault | None:
        """The first of these faults that is not used up; this try is counted for it and for no other."""
        for fault in faults.asked:
            if fault.word in words and self.left(scope, fault):
                self.count(scope, fault)
                return fault
        return None

    def left(self, scope: str, fault: Fault) -> bool:
        """Whether the next try is struck."""
        return fault.times is None or self._struck.get((scope, fault), 0) < fault.times

    def count(self, scope: str, fault: Fault) -> None:
        """A try was struck. Beyond 10,000 the count not touched for longest is forgotten."""
        if fault.times is None:
            return
        self._struck[scope, fault] = self._struck.pop((scope, fault), 0) + 1
        if len(self._struck) > _MOST_COUNTS:
            self._struck.popitem(last=False)
