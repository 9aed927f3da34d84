"""What the poller's tests share."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_configure(config: pytest.Config) -> None:
    # google-api-core says so at its import; the poller asks for no gRPC status details of it.
    config.addinivalue_line("filterwarnings", "ignore:Please install grpcio-status:ImportWarning")
