"""Checks at the end of a run: nothing is lost, nothing is doubled."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Final

import requests

from imagegen.generation import Generation, Status, StoredImage
from imagegen.lifecycle.transitions import MOST_LOST_CALLS
from tests.chaos.account import Content
from tests.chaos.client import TERMINAL, Accepted
from tests.chaos.scenario import POLLED_MODEL, Ending, Start

_EXPECTED_ERROR: Final = "outcomeUnknown"
"""The only error that is correct in a scenario: the response of a direct call was lost, and it is not repeated."""

type MonitorOf = Callable[[str], Mapping[str, Any] | None]
"""Reads the monitor at a path. None: 404, or no answer."""


@dataclass(frozen=True)
class Evidence:
    """What is known at the end of a run."""

    starts: Sequence[Start]
    accepted: Sequence[Accepted]
    content: Content
    emulator: Mapping[str, Any]
    """Its counters."""
    repeat_lost_calls: bool

    @cached_property
    def kept(self) -> list[Accepted]:
        return [one for one in self.accepted if not one.deleted]

    @cached_property
    def calls(self) -> dict[str, int]:
        """Billed direct calls by the key of the generation. The prompts differ, so this counts doubled starts too."""
        billed: Mapping[str, int] = self.emulator["billed_by_prompt"]
        digests = {one.start.key: hashlib.sha256(one.start.prompt.encode()).hexdigest() for one in self.accepted}
        return {key: billed.get(digest, 0) for key, digest in digests.items()}


def problems(evidence: Evidence, monitor_of: MonitorOf) -> list[str]:
    """Everything that was lost or doubled, one line each."""
    return [
        *_starts(evidence),
        *_records(evidence),
        *_monitors(evidence, monitor_of),
        *_blobs(evidence),
        *_operations(evidence),
        *_calls(evidence),
    ]


def figures(evidence: Evidence) -> Iterator[str]:
    """The numbers of the report."""
    done = evidence.content.done.values()
    polled = [one for one in evidence.accepted if one.start.model == POLLED_MODEL]
    direct = {one.start.key for one in evidence.accepted} - {one.start.key for one in polled}
    calls = [evidence.calls[key] for key in direct]
    yield f"started {len(evidence.starts)}, accepted {len(evidence.accepted)}"
    deleted = len(evidence.accepted) - len(evidence.kept)
    outcomes = Counter(one.status.value for one in done)
    errors = Counter(one.error.code for one in done if one.error)
    yield f"outcomes: {counted(outcomes)}, deleted={deleted}; errors: {counted(errors)}"
    yield f"by model: {counted(Counter(one.start.model for one in evidence.accepted))}"
    yield f"left under active/: {len(evidence.content.active)}; poisoned messages: {evidence.content.poisoned}"
    yield f"images stored: {len(evidence.content.images)}"
    yield (
        f"polled generations {len(polled)}, operations {evidence.emulator['operations']}, "
        f"submits {evidence.emulator['submits']}"
    )
    yield (
        f"direct generations {len(direct)}, billed calls {sum(calls)}, most for one {max(calls, default=0)}, "
        f"repeats {sum(max(0, count - 1) for count in calls)}"
    )


def _starts(evidence: Evidence) -> Iterator[str]:
    accepted = {one.start.key for one in evidence.accepted}
    yield from (f"{one.key}: no host accepted it" for one in evidence.starts if one.key not in accepted)
    for one in evidence.accepted:
        if len(one.ids) > 1:
            yield f"{one.start.key}: several ids for one key: {sorted(one.ids)}"
        if one.start.ending is Ending.DELETE and not one.deleted:
            yield f"{one.start.key}: it could not be deleted"


def _records(evidence: Evidence) -> Iterator[str]:
    content, expected = evidence.content, {one.id for one in evidence.kept}
    yield from (f"{one}: not terminal, still under active/" for one in sorted(content.active))
    yield from (
        f"{one}: accepted, and its record is lost" for one in sorted(expected - {*content.done} - content.active)
    )
    yield from (f"{one}: a record of no accepted generation" for one in sorted({*content.done} - expected))
    yield from (f"{name}: a key of no record" for name, id_ in content.keys.items() if id_ not in expected)
    twice = [id_ for id_, count in Counter(content.keys.values()).items() if count > 1]
    yield from (f"{one}: several keys" for one in twice)


def _monitors(evidence: Evidence, monitor_of: MonitorOf) -> Iterator[str]:
    for one in evidence.accepted:
        monitor = monitor_of(one.path)
        if one.deleted:
            if monitor is not None:
                yield f"{one.id}: deleted, and its monitor is there"
        elif monitor is None:
            yield f"{one.id}: no monitor"
        elif monitor["status"] not in TERMINAL:
            yield f"{one.id}: the monitor says {monitor['status']}"
        elif monitor["status"] == "succeeded":
            yield from _images(one, monitor["result"]["data"])
        elif monitor["status"] == "failed":
            error = monitor["error"]
            if error["code"] != _EXPECTED_ERROR or one.start.model == POLLED_MODEL:
                yield f"{one.id}: failed with {error['code']} ({one.start.model}, {one.start.prompt})"
        elif one.start.ending is not Ending.CANCEL:
            yield f"{one.id}: canceled, and no caller canceled it"


def _images(one: Accepted, images: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    if len(images) != one.start.n:
        yield f"{one.id}: {len(images)} images instead of {one.start.n}"
    for index, image in enumerate(images):
        if "error" in image:
            yield f"{one.id}: image {index} has the error {image['error']['code']} ({one.start.prompt})"
            continue
        answer = requests.get(image["url"], timeout=60)
        if answer.status_code != 200:
            yield f"{one.id}: image {index} answers {answer.status_code}"
        elif hashlib.sha256(answer.content).hexdigest() != image["sha256"]:
            yield f"{one.id}: image {index} has other bytes than recorded"


def _blobs(evidence: Evidence) -> Iterator[str]:
    recorded = {blob for one in evidence.content.done.values() for blob in _blobs_of(one)}
    for name in sorted(evidence.content.images - recorded):
        yield f"{name}: an image without a record{_described(evidence, name.partition('/')[0])}"


def _described(evidence: Evidence, id_: str) -> str:
    """What the generation of an id was and became, for the search in the logs."""
    done = evidence.content.done.get(id_)
    outcome = "no record" if done is None else f"{done.status}, {done.error.code if done.error else 'no error'}"
    asked = (
        f"{one.start.model}, {one.start.prompt}, at {one.start.at:.0f} s, ending {one.start.ending}"
        for one in evidence.accepted
        if id_ in one.ids
    )
    return f" ({'; '.join([outcome, *asked])})"


def _blobs_of(generation: Generation) -> Iterable[str]:
    if generation.status is not Status.SUCCEEDED:
        return ()
    return (image.blob for image in generation.images if isinstance(image, StoredImage))


def _operations(evidence: Evidence) -> Iterator[str]:
    polled = [one for one in evidence.accepted if one.start.model == POLLED_MODEL]
    created, ids = set(evidence.emulator["by_operation"]), {one.id for one in polled}
    yield from (f"{one}: an operation of no generation" for one in sorted(created - ids))
    # A generation that was canceled early has none.
    must_exist = {one.id for one in polled if one.start.ending is not Ending.CANCEL}
    yield from (f"{one}: a generation without an operation" for one in sorted(must_exist - created))
    if evidence.emulator["operations"] != len(created):
        yield f"{evidence.emulator['operations']} operations for {len(created)} ids"


def _calls(evidence: Evidence) -> Iterator[str]:
    most = MOST_LOST_CALLS if evidence.repeat_lost_calls else 1
    for one in evidence.accepted:
        count = evidence.calls[one.start.key]
        if count > most:
            yield f"{one.id}: {count} billed calls ({one.start.model}, {one.start.prompt})"
        done = evidence.content.done.get(one.id)
        if done and done.status is Status.SUCCEEDED and one.start.model != POLLED_MODEL and count == 0:
            yield f"{one.id}: succeeded without a call"


def counted[T: (str, int)](counts: Mapping[T, int]) -> str:
    """The counts on one line."""
    return ", ".join(f"{name}={count}" for name, count in sorted(counts.items())) or "none"
