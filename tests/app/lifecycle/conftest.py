from __future__ import annotations

import pytest

from tests.app.lifecycle.fake_app import FakeApp


@pytest.fixture
def app() -> FakeApp:
    return FakeApp()
