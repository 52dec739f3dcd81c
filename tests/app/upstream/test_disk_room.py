"""Reservations on the temporary disk."""

from __future__ import annotations

import gc
from concurrent.futures import ThreadPoolExecutor

from imagegen.upstream.disk_room import TEMPORARY_DISK, DiskRoom, Reservation


def test_reservations_share_four_fifths_of_the_free_bytes() -> None:
    disk = DiskRoom(lambda: 1_000)
    first = disk.reserve(500)
    assert first
    assert disk.reserve(301) is None
    second = disk.reserve(300)
    assert second
    first.release()
    first.release()  # no effect
    assert disk.reserve(501) is None
    with disk.reserve(500) or Reservation(disk, 0):
        assert disk.reserve(1) is None
    assert disk.reserve(500)


def test_free_bytes_are_read_for_each_reservation() -> None:
    free = [1_000]
    disk = DiskRoom(lambda: free[0])
    kept = disk.reserve(100)
    free[0] = 200
    assert disk.reserve(100) is None
    free[0] = 1_000
    assert disk.reserve(100)
    assert kept


def test_dropped_reservation_is_released() -> None:
    disk = DiskRoom(lambda: 1_000)
    kept = disk.reserve(800)
    assert disk.reserve(1) is None
    assert kept
    del kept
    gc.collect()
    assert disk.reserve(800)


def test_threads_never_reserve_more_than_there_is() -> None:
    disk = DiskRoom(lambda: 1_000)
    with ThreadPoolExecutor(16) as pool:
        found = [one for one in pool.map(disk.reserve, [100] * 400) if one]
    assert len(found) == 8


def test_temporary_disk_of_this_machine_has_room() -> None:
    reservation = TEMPORARY_DISK.reserve(1)
    assert reservation
    reservation.release()
