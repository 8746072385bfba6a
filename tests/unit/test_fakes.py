"""The fake engine keeps what the real one promises; tests/integration/test_engine.py asks the same of Docker."""

from __future__ import annotations

import contextlib
import io

import pytest

from tests.engine_contract import EngineContract
from tests.fakes import FakeEngine, FakeImage


class Interpreter(FakeImage):
    """Runs what `python -c` is given, here."""

    def answer(self, command: tuple[str, ...]) -> tuple[int, str]:
        output = io.StringIO()
        try:
            with contextlib.redirect_stdout(output):
                exec(command[2])
        except SystemExit as ended:
            return int(ended.code or 0), output.getvalue()
        return 0, output.getvalue()


class TestFakeEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> FakeEngine:
        return FakeEngine(Interpreter())

    @pytest.fixture
    def image(self) -> str:
        return "registry.test/toys@sha256:0"
