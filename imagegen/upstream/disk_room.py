"""Room on the temporary disk, reserved before a call. A response that does not fit would be billed and lost."""

from __future__ import annotations

import shutil
import tempfile
import threading
from collections.abc import Callable
from typing import Final
from weakref import WeakSet

_SHARE: Final = 0.8
"""Of the free bytes. The rest is for downloads and for responses that are larger than estimated."""


class Reservation:
    """Reserved bytes. Released by `release`, at the end of a ``with``, or when nothing refers to it any more."""

    def __init__(self, disk: DiskRoom, size: int) -> None:
        self._disk = disk
        self.size = size

    def release(self) -> None:
        """Release the bytes. A second release has no effect."""
        self._disk.release(self)

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: object) -> None:
        self.release()


class DiskRoom:
    """The reservations on one disk. Thread-safe.

    Parameters
    ----------
    free_bytes
        Reads the free bytes of the disk.
    """

    def __init__(self, free_bytes: Callable[[], int]) -> None:
        self._free_bytes = free_bytes
        self._lock = threading.Lock()
        # Weak: a response that is dropped unread must not keep its room.
        self._reservations = WeakSet[Reservation]()

    def reserve(self, size: int) -> Reservation | None:
        """Reserve this many bytes. None if the disk has no room for them.

        A response that is partly written counts twice, as reserved and as used: a call may be refused too early, but
        never too late.
        """
        with self._lock:
            reserved = sum(reservation.size for reservation in self._reservations)
            if reserved + size > self._free_bytes() * _SHARE:
                return None
            reservation = Reservation(self, size)
            self._reservations.add(reservation)
            return reservation

    def release(self, reservation: Reservation) -> None:
        with self._lock:
            self._reservations.discard(reservation)


TEMPORARY_DISK: Final = DiskRoom(lambda: shutil.disk_usage(tempfile.gettempdir()).free)
"""The disk of this process, which all upstreams share."""
