"""State that survives a restart of the emulator: rows of JSON in a SQLite file."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

type Kind = Literal["operation", "images", "key"]


class Kept:
    """Rows by kind and id. Without a file, nothing is kept.

    A transaction per write: a process that is killed between two writes leaves a file that the next one can read.
    """

    def __init__(self, file: Path | None = None) -> None:
        self._database = None
        if file is not None:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(file, isolation_level=None)  # commits each statement
            # No write waits for the disk: the data survives a killed process, not a power failure.
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=NORMAL")
            self._database.execute(
                "CREATE TABLE IF NOT EXISTS kept (kind TEXT, id TEXT, value TEXT, PRIMARY KEY (kind, id))"
            )

    def rows(self, kind: Kind) -> Iterator[tuple[str, Any]]:
        """Yield ids and values, oldest first."""
        if self._database is not None:
            query = "SELECT id, value FROM kept WHERE kind = ? ORDER BY rowid"
            for name, text in self._database.execute(query, (kind,)).fetchall():
                yield name, json.loads(text)

    def put(self, kind: Kind, name: str, value: Any) -> None:
        if self._database is not None:
            self._database.execute("REPLACE INTO kept VALUES (?, ?, ?)", (kind, name, json.dumps(value)))

    def remove(self, kind: Kind, name: str | None = None) -> None:
        """Remove a row, or all of a kind."""
        if self._database is not None:
            self._database.execute("DELETE FROM kept WHERE kind = ? AND ? IN (id, '')", (kind, name or ""))

    def close(self) -> None:
        if self._database is not None:
            self._database.close()
