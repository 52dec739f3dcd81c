"""The end of a generation: write the outcome, remove what does not belong to it."""

from __future__ import annotations

import logging

from imagegen.crash_points import CrashPoint, crash_point
from imagegen.events import log_event
from imagegen.generation import Generation, Status, StoredImage
from imagegen.lifecycle.ports import Ports


def finish(ports: Ports, generation: Generation, etag: str | None) -> Generation | None:
    """Write the outcome unless there is one. Return the outcome that won, None when the generation was deleted.

    Parameters
    ----------
    etag
        Of the active record, which is dropped. None leaves the record to its worker.
    """
    winner = ports.records.write_outcome(generation)
    crash_point(CrashPoint.OUTCOME_WRITTEN)
    if winner == generation:
        _log_outcome(generation)
        ports.telemetry.count_outcome(generation)
        may_have_images = generation.is_claimed or generation.lost_calls > 0 or any(generation.images)
        if generation.status is not Status.SUCCEEDED and may_have_images:
            ports.images.delete_all(generation.id)
    else:
        log_event("generation.overtaken", id=generation.id, status=winner.status if winner else "deleted")
        _remove_orphans(ports, generation.id, winner)
    # A crash before this line leaves both records. Readers use the outcome; the next tick comes here again.
    if etag is not None:
        ports.records.drop_active(generation.id, etag)
        crash_point(CrashPoint.RECORD_DROPPED)
    return winner


def drop(ports: Ports, generation_id: str, winner: Generation | None, etag: str) -> None:
    """Drop the active record of a generation that ended elsewhere."""
    _remove_orphans(ports, generation_id, winner)
    ports.records.drop_active(generation_id, etag)


def _remove_orphans(ports: Ports, generation_id: str, winner: Generation | None) -> None:
    """Remove images that the winning outcome does not list."""
    listed = winner.images if winner and winner.status is Status.SUCCEEDED else ()
    keep = {image.blob for image in listed if isinstance(image, StoredImage)}
    ports.images.delete_all(generation_id, keep=keep)


def _log_outcome(generation: Generation) -> None:
    log_event(
        f"generation.{generation.status}",
        level=logging.ERROR if generation.status is Status.FAILED else logging.INFO,
        id=generation.id,
        code=generation.error.code if generation.error else None,
        images=sum(isinstance(image, StoredImage) for image in generation.images) or None,
        seconds=round((generation.last_action - generation.created).total_seconds(), 1),
    )
