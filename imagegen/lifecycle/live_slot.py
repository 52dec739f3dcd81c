"""The mark of a live slot. It tells the other instances that a slot lists the active records, and until when.

A start that sees the mark asks for no early tick. So the mark must never promise a listing that does not come:

- `until` is earlier than the last listing of the slot.
- A slot that ends early clears the mark, and lists once more after `KNOWN_FOR`. A start that relied on the mark wrote
  its record before that listing.

A crashed slot leaves its mark. Until it ends, starts wait for the timer, as they do without early ticks.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Protocol

from imagegen.errors import ConflictError, StorageUnavailableError

KNOWN_FOR: Final = timedelta(seconds=1)
"""How long an instance uses a mark that it has read. Each slot with work stays so much longer, which is billed."""

_LAST_LISTING: Final = timedelta(seconds=1)
"""The last listing of a slot is at most this long before its end."""


@dataclass(frozen=True, slots=True)
class Mark:
    """The mark as it was read."""

    etag: str
    until: datetime | None
    """None: no slot is live."""


class LiveSlot(Protocol):
    """The blob that holds the mark. Every method may raise StorageUnavailableError."""

    def read(self) -> Mark | None:
        """The mark. None before the first slot of the app."""
        ...

    def replace(self, found: Mark | None, until: datetime) -> str:
        """Write the mark if it is still the one that was found. Return its ETag. Raises ConflictError."""
        ...

    def write(self, until: datetime) -> str:
        """Write the mark. Return its ETag."""
        ...

    def clear(self, etag: str) -> None:
        """Clear the mark if it still has this ETag."""
        ...


class SlotMark:
    """The mark of one slot. If storage does not answer, the slot works without it.

    Parameters
    ----------
    ends
        The end of the slot.
    """

    def __init__(self, blob: LiveSlot, ends: datetime) -> None:
        self._blob = blob
        self._until = ends - _LAST_LISTING
        self._etag: str | None = None
        """Of the mark, while it is set."""

    def claim(self, now: datetime) -> bool:
        """Set the mark, unless another slot is live. Return whether this slot may run."""
        try:
            found = self._blob.read()
            if found and found.until and found.until > now:
                return False
            self._etag = self._blob.replace(found, self._until)
        except ConflictError:  # another slot began at this moment
            return False
        except StorageUnavailableError:
            pass  # two slots at once are harmless
        return True

    def set(self) -> None:
        """Set the mark, if it is not set."""
        if self._etag is None:
            try:
                self._etag = self._blob.write(self._until)
            except StorageUnavailableError:
                return

    def clear(self) -> bool:
        """Clear the mark. Return whether a start may have relied on it: the slot must list once more."""
        if self._etag is None:
            return False
        try:
            self._blob.clear(self._etag)
        except StorageUnavailableError:
            return True  # it may still be there: the slot goes on, and clears it after its next listing
        self._etag = None
        return True
