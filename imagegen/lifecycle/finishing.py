"""Writing down what came of a move.

Every write is conditional on the record that was read. Who loses that race walks away: the winner's move counts.
"""

from __future__ import annotations

import logging
from datetime import timedelta

from imagegen.events import log_event
from imagegen.generation import Generation, Status, StoredImage, Versioned
from imagegen.lifecycle.ports import Ports

_WORTH_WRITING = timedelta(seconds=5)
"""A ``due`` that is nearer than this is kept in mind by the worker that polls, not written."""


class Records:
    """The records of a ports, and how they change."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports

    def save(self, current: Versioned, generation: Generation) -> Versioned:
        """Write what others must know; a near ``due`` alone is not worth a transaction."""
        before = current.generation
        if generation.changed(due=before.due) == before and generation.due - self._ports.clock() < _WORTH_WRITING:
            return Versioned(generation, current.etag)
        return self.write(current, generation)

    def write(self, current: Versioned, generation: Generation) -> Versioned:
        """Replace the record that was read. Raises ConflictError."""
        return Versioned(generation, self._ports.records.save(generation, current.etag))

    def end(self, generation: Generation, current: Versioned) -> Versioned:
        """The same, of a record that was read, which is dropped. Returns the outcome that is true."""
        return Versioned(self.finish(generation, current.etag) or generation, current.etag)

    def finish(self, generation: Generation, etag: str | None) -> Generation | None:
        """Write the outcome; returns the one that is true, None when the generation was deleted.

        Parameters
        ----------
        etag
            Of the active record, which is dropped; None leaves it for somebody else.
        """
        true = self._ports.records.write_outcome(generation)
        if true != generation:
            # Another outcome came first. Images that we wrote for ours must not stay behind it.
            log_event("generation.overtaken", id=generation.id, status=true.status if true else "deleted")
            if true is None or true.status is not Status.SUCCEEDED:
                self._ports.images.delete_all(generation.id)
        else:
            _log_outcome(generation)
            begun = generation.is_claimed or generation.lost_calls > 0 or any(generation.images)
            if generation.status is not Status.SUCCEEDED and begun:
                self._ports.images.delete_all(generation.id)
        # A crash before this line leaves both records: readers take the outcome, the next tick comes here again.
        if etag is not None:
            self._ports.records.drop_active(generation.id, etag)
        return true


def _log_outcome(generation: Generation) -> None:
    log_event(
        f"generation.{generation.status}",
        level=logging.ERROR if generation.status is Status.FAILED else logging.INFO,
        id=generation.id,
        code=generation.error.code if generation.error else None,
        images=sum(isinstance(image, StoredImage) for image in generation.images) or None,
        seconds=round((generation.last_action - generation.created).total_seconds(), 1),
    )
