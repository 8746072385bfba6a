"""What a node does to a run, on a real engine: a full disk, no memory, a container that somebody ends."""

from __future__ import annotations

import io
import os
import shlex
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import pytest

from pipeline.chip import Run
from pipeline.errors import WorldError
from pipeline.world.engine import Engine
from pipeline.world.engine_container import Container, Limits
from pipeline.world.server import Launch, serving
from pipeline.world.server_end import end_of, memory_kills
from tests.engine_store import tar_of
from tests.fakes_server import free_port
from tests.integration.conftest import Checkout
from tests.own_engine import own_engine
from tests.programs.test_server import LAST, OF_THE_MACHINE
from tests.small_disk import fill, small_disk

pytestmark = pytest.mark.integration
QUIET = Run(network="none")
SMALL = Limits(memory_bytes=64 << 20, processes=64, scratch_bytes=1 << 20)
GREEDY = ["python", "-c", "x = bytearray(1 << 30)"]


def archive(**files: bytes) -> io.BytesIO:
    return io.BytesIO(tar_of(files))


@pytest.fixture
def image(released: Checkout) -> str:
    build = released.record().stages.build
    assert build is not None
    assert build.result is not None
    return build.result.model.reference("127.0.0.1:5000")


def test_an_engine_whose_disk_is_full_refuses_no_image(
    tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Path(tmp_path_factory.mktemp("d"))
    tree = folder / "tree.tar"
    tree.write_bytes(archive(big=os.urandom(80 << 20)).getvalue())
    context = archive(Dockerfile=b"FROM scratch\nCOPY big /big\n", big=os.urandom(40 << 20))
    with small_disk(folder / "data", 64 << 20), own_engine(folder) as address:
        monkeypatch.setenv("DOCKER_HOST", address)
        engine = Engine.connect()
        with pytest.raises(WorldError, match="no space left on device") as importing:
            engine.import_tree(tree, tag="full:1", changes=[])
        fill(folder / "data")
        with pytest.raises(WorldError, match="no space left on device") as building:
            engine.build(context, tag="full:2", labels={}, arguments={}, on_line=lambda _: None)
    for told in (importing.value, building.value):
        assert told.hint.startswith("a disk is full"), told


class TestContainer:
    @pytest.fixture
    def engine(self) -> Iterator[Engine]:
        engine = Engine.connect()
        yield engine
        assert not [name for name in engine.remove_left_over() if name.startswith("faults-")]

    def test_what_the_kernel_ended_for_want_of_memory_is_counted(
        self, engine: Engine, image: str
    ) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="faults-oom", volumes={}, limits=SMALL
        ) as container:
            assert memory_kills(container) == 0
            code, _ = container.execute(GREEDY)
            assert (code, container.running(), memory_kills(container)) == (137, True, 1)
            end = end_of(container, "INFO: loading\n")
        assert end.is_of_machine
        assert end.seen == "the kernel ended 1 of its processes for want of memory (OOM)"

    def test_a_container_that_ran_out_of_memory_itself_says_so(
        self, engine: Engine, image: str
    ) -> None:
        with engine.container(
            image, GREEDY, run=QUIET, name="faults-whole", volumes={}, limits=SMALL
        ) as container:
            container.wait()
            assert container.ending() == "ended with exit code 137 for want of memory (OOM)"

    def test_a_container_that_somebody_ended_says_so(self, engine: Engine, image: str) -> None:
        with engine.container(
            image, ["sleep", "infinity"], run=QUIET, name="faults-killed", volumes={}
        ) as container:
            subprocess.run(
                ["docker", "kill", "faults-killed"], check=True, capture_output=True, timeout=60
            )
            end = end_of(container, "")
        assert (end.is_of_machine, end.seen) == (True, "its container ended with exit code 137")


class LittleMemory(Engine):
    """The machine's engine, whose containers get 64 MiB."""

    @contextmanager
    def container(
        self,
        image: str,
        command: Sequence[str],
        *,
        run: Run,
        name: str,
        volumes: Mapping[str, str],
        user: str | None = None,
        limits: Limits | None = SMALL,
    ) -> Iterator[Container]:
        with super().container(
            image, command, run=run, name=name, volumes=volumes, user=user, limits=limits
        ) as found:
            yield found


def launch(image: str, script: str) -> Launch:
    """A launcher that returns at once, as FlagScale does; what it left running writes the log."""
    return Launch(
        image=image,
        run=QUIET,
        name=f"faults-server-{os.getpid()}",
        volumes={},
        command=("sh", "-c", f"({script}) >/tmp/serve.output 2>&1 &"),
        log_path="/tmp/serve.output",
        port=free_port(),
        budget_s=60,
    )


class TestServer:
    @pytest.mark.parametrize(("cause", "advice"), OF_THE_MACHINE)
    def test_what_vllm_prints_of_a_device_that_cannot_be_had_is_no_refusal(
        self, image: str, cause: str, advice: str
    ) -> None:
        dies = launch(image, f"echo {shlex.quote(cause)}; echo {shlex.quote(LAST)}; exit 1")
        with (
            pytest.raises(WorldError, match="the server died after") as told,
            serving(Engine.connect(), dies, lambda _: None),
        ):
            pass
        assert told.value.details.splitlines() == [cause[:300], LAST]
        assert told.value.hint.startswith(advice)

    def test_a_server_that_the_kernel_ends_for_want_of_memory_says_so(self, image: str) -> None:
        greedy = shlex.join(GREEDY)
        with (
            pytest.raises(WorldError, match="for want of memory") as told,
            serving(LittleMemory.connect(), launch(image, greedy), lambda _: None),
        ):
            pass
        assert "docker stats" in told.value.hint
