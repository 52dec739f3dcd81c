"""The api-versions that each API accepts. A test compares them with those that the app sends."""

from __future__ import annotations

from typing import Final

OPERATIONS: Final = frozenset(f"2023-{month}-01-preview" for month in ("06", "07", "08", "09", "10"))
DALLE: Final = frozenset(
    {
        "2023-12-01-preview",
        "2024-02-01",
        "2024-02-15-preview",
        "2024-03-01-preview",
        "2024-04-01-preview",
        "2024-05-01-preview",
        "2024-06-01",
        "2024-07-01-preview",
        "2024-08-01-preview",
        "2024-09-01-preview",
        "2024-10-01-preview",
        "2024-10-21",
        "2024-12-01-preview",
        "2025-01-01-preview",
        "2025-02-01-preview",
        "2025-03-01-preview",
        "2025-04-01-preview",
    }
)
GPT_IMAGE: Final = frozenset({"2025-04-01-preview"})
"""The dated versions of the deployment route that support these models."""
V1: Final = frozenset({None, "preview", "v1"})
"""The published specification of the v1 image route has `preview` only. Azure also accepts `v1`, and none."""
FLUX: Final = frozenset({"preview"})
MAI: Final = frozenset({None, "preview"})
LISTS: Final = DALLE | {"2022-12-01", "2023-03-15-preview", "2023-05-15"}
