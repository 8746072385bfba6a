"""What an engine promises the stages. `FakeEngine` is held to it without Docker, `Engine` with it."""

from __future__ import annotations

import pytest

from pipeline.chip import Run
from pipeline.errors import WorldError
from pipeline.world.engine import Engine

QUIET = Run(network="none")


class EngineContract:
    """Subclasses give the fixtures `engine` and `image`; `python` runs in a container of the image."""

    def test_a_container_runs_until_its_block_ends(self, engine: Engine, image: str) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="contract-runs", volumes={}
        ) as container:
            assert container.name == "contract-runs"
            assert container.running()
            assert engine.has_container("contract-runs")
            assert not engine.has_container("contract")
            assert any("sleep infinity" in line for line in container.processes())
        assert not container.running()
        assert not engine.has_container("contract-runs")

    def test_a_command_gives_its_exit_code_and_output(self, engine: Engine, image: str) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="contract-command", volumes={}
        ) as container:
            assert container.execute(["python", "-c", "print('seen')"]) == (0, "seen\n")
            code, _ = container.execute(["python", "-c", "raise SystemExit(3)"])
            assert code == 3

    def test_a_command_in_a_container_that_is_gone_says_so(
        self, engine: Engine, image: str
    ) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="contract-gone", volumes={}
        ) as container:
            pass
        with pytest.raises(WorldError) as caught:
            container.execute(["python", "-c", "print('seen')"])
        assert "contract-gone" in caught.value.where

    def test_a_container_is_gone_after_an_error_in_its_block(
        self, engine: Engine, image: str
    ) -> None:
        for _ in range(2):  # a name left behind would be in use the second time
            with (
                pytest.raises(ZeroDivisionError),
                engine.container(
                    image, ["sleep", "infinity"], run=QUIET, name="contract-error", volumes={}
                ),
            ):
                raise ZeroDivisionError

    def test_two_containers_cannot_share_a_name(self, engine: Engine, image: str) -> None:
        with (
            engine.container(
                image, ["sleep", "infinity"], run=QUIET, name="contract-name", volumes={}
            ),
            pytest.raises(WorldError, match="in use"),
            engine.container(
                image, ["sleep", "infinity"], run=QUIET, name="contract-name", volumes={}
            ),
        ):
            pass

    def test_a_container_is_removed_by_name_only_when_it_is_of_the_image(
        self, engine: Engine, image: str
    ) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="contract-left", volumes={}
        ):
            assert engine.has_container("contract-le.*")
            engine.remove_container("contract-left", image="another:1")
            assert engine.has_container("contract-left")
            engine.remove_container("contract-left", image=image)
            assert not engine.has_container("contract-left")

    def test_a_command_of_its_own_runs_to_its_end(self, engine: Engine, image: str) -> None:
        command = ["python", "-c", "print('seen'); raise SystemExit(3)"]
        ended = engine.run_once(image, command, run=QUIET, name="contract-once", volumes={})
        assert ended == (3, "seen\n")

    def test_a_container_says_how_it_ended(self, engine: Engine, image: str) -> None:
        command = ["python", "-c", "print('seen'); raise SystemExit(3)"]
        with engine.container(
            image, command, run=QUIET, name="contract-ended", volumes={}
        ) as container:
            container.wait()
            assert (container.running(), container.ending()) == (False, "ended with exit code 3")
        assert container.ending() == "was removed"

    def test_an_image_nobody_has_is_none(self, engine: Engine) -> None:
        assert engine.image("no-such-image:never") is None

    def test_the_engine_knows_its_host_and_its_room(self, engine: Engine) -> None:
        host = engine.host()
        assert host.cores >= 1
        assert host.memory_bytes > 0
        assert host.cpu
        assert (engine.free_bytes() or 0) > 0
