"""What stands before Flower's application, and in which order."""

from pathlib import Path

import pytest
from flwr.superlink import main as superlink
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.gzip import GZipMiddleware

from server.endings import Endings
from server.guard import Guard
from server.held_pulls import HeldPulls
from server.senders import Senders
from server.study import make_study
from server.superlink_process import guard_with


def test_what_stands_before_flowers_application(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    flowers = Middleware(GZipMiddleware)
    monkeypatch.setattr(superlink, "create_app", lambda: Starlette(middleware=[flowers]))
    guard_with(make_study(tmp_path / "study", ["a"]))
    order = [middleware.cls for middleware in superlink.create_app().user_middleware]
    assert order == [Guard, HeldPulls, Endings, GZipMiddleware, Senders]
