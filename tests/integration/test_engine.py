"""The real engine against the contract that the fake one is held to."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pipeline.world.engine import Engine
from tests.engine_contract import EngineContract
from tests.integration.conftest import Checkout

pytestmark = pytest.mark.integration


class TestEngine(EngineContract):
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = Engine.connect()
        yield engine
        assert not [name for name in engine.remove_left_over() if name.startswith("contract-")]

    @pytest.fixture
    def image(self, released: Checkout) -> str:
        image = released.record().stages.build
        assert image is not None
        assert image.result is not None
        runtime = next(found for found in image.result.images if found.layer == "runtime")
        return f"127.0.0.1:5000/{runtime.repository}@{runtime.manifest_digest}"


def test_the_disk_of_an_engine_elsewhere_is_not_measured_here(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    engine = Engine.connect()
    monkeypatch.setenv("DOCKER_HOST", "ssh://node")
    assert engine.free_bytes() is None
