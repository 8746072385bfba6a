"""A finished release of 48 cells in a folder: records, rendered files, cards on a hub, images in a real registry.

    python -m tests.finished

makes it in the folder it is started in. It is the command `release` itself: render, card, promote and publish are
real; the stages that build, serve and measure are told how they ended for `cpu/smollm2` in a committed record.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path

import yaml

from pipeline import release as flow_module
from pipeline.canonical import sha256_bytes
from pipeline.cell_release import CellRelease, Ended
from pipeline.cli import main
from pipeline.record import Record, StageName, read_record
from pipeline.reporter import StageLog
from pipeline.results import BuildResult, FileHash
from pipeline.statements import sealed_sha256
from pipeline.steps import FLOW
from pipeline.world.registry import Registry
from tests.fakes_hubs import TOKEN
from tests.fakes_registry import push_image
from tests.projects import ROOT

CHIPS, MODELS = 8, 6
CELLS = CHIPS * MODELS
RELEASE = "2026.11.24.1"
SOURCE = ROOT / "records/2026.11.24.101/cpu/smollm2/record.json"
WEIGHTS = b"a few weights"
ENVIRONMENT = {  # of the programs; the tokens are those of stand-ins of hubs, which have no Xet store
    "PYTHONPATH": str(ROOT),
    "PATH": "/usr/bin:/bin",
    "HF_TOKEN": TOKEN,
    "MODELSCOPE_API_TOKEN": TOKEN,
    "HF_HUB_DISABLE_XET": "1",
    "NO_PROXY": "127.0.0.1",
}
TOLD: tuple[StageName, ...] = (
    *("build", "weights", "smoke", "accuracy", "performance", "rehearse", "attest"),
)


FOLDER_HUB: Mapping[str, object] = {"folder": "out/hub"}


def finished_release(folder: Path, host: str, *hubs: Mapping[str, object]) -> None:
    """A registry must answer at `host`; images go into its repositories `toys/…`. Cards go to a folder, or `hubs`."""
    write_project(folder, host, hubs or (FOLDER_HUB,))
    done = subprocess.run(
        [sys.executable, "-m", "tests.finished"],
        cwd=folder,
        env=ENVIRONMENT,
        text=True,
        capture_output=True,
        check=False,
    )
    if done.returncode:
        raise LookupError(done.stdout[-3000:] + done.stderr[-3000:])


def write_project(
    folder: Path, host: str, hubs: Sequence[Mapping[str, object]] = (FOLDER_HUB,)
) -> None:
    """The committed project with 8 chips like `cpu` and 6 models like `smollm2`."""
    matrix = yaml.load((ROOT / "matrix.yaml").read_bytes(), yaml.CSafeLoader)
    lock = yaml.load((ROOT / "matrix.lock").read_bytes(), yaml.CSafeLoader)
    chips = [f"chip{number}" for number in range(CHIPS)]
    models = [f"model{number}" for number in range(MODELS)]
    local = {"registry": f"{host}/toys", "hubs": list(map(dict, hubs))}
    matrix |= {
        "targets": {"local": local},
        "chips": dict.fromkeys(chips, matrix["chips"]["cpu"]),
        "models": {name: {**matrix["models"]["smollm2"], "title": name} for name in models},
        "cells": {},
        "nodes": {},
    }
    lock |= {
        "bases": dict.fromkeys(chips, lock["bases"]["cpu"]),
        "requirements": dict.fromkeys(chips, lock["requirements"]["cpu"]),
        "weights": dict.fromkeys(models, lock["weights"]["smollm2"]),
        "nodes": {},
    }
    (folder / "matrix.yaml").write_text(yaml.safe_dump(matrix), "utf-8")
    (folder / "matrix.lock").write_text(yaml.safe_dump(lock), "utf-8")
    shutil.copytree(ROOT / "templates", folder / "templates")
    shutil.copytree(ROOT / "images/serving", folder / "images/serving")
    for chip in chips:
        (folder / "images" / chip).mkdir()
        shutil.copy(ROOT / "images/cpu/requirements.lock", folder / "images" / chip)
    for model in models:
        (folder / "out/share" / model).mkdir(parents=True)
        (folder / "out/share" / model / "model.safetensors").write_bytes(WEIGHTS)


def _told(stage: StageName, record: Record, run: CellRelease, _log: StageLog) -> Ended:
    found = record.stages.get(stage)
    if found is None or found.result is None:
        raise LookupError(stage)
    registry = run.world.registry(run.names.staging_host)
    update: Mapping[str, object] = {}
    if stage == "build":
        update = _built(found.result, registry, run)
    elif stage == "weights":
        size = len(WEIGHTS)
        file = FileHash(path="model.safetensors", sha256=sha256_bytes(WEIGHTS), size_bytes=size)
        update = {"files": (file,)}
    elif stage == "rehearse":
        update = {"blocks_sha256": run.inputs.blocks(run.record)}
    elif stage == "attest":
        attached = tuple(
            one.model_copy(
                update={
                    "manifest_digest": push_image(
                        registry, run.names.staging_model, one.kind.encode()
                    )
                }
            )
            for one in found.result.attestations
        )
        update = {
            "digest": run.built.model.manifest_digest,
            "record_sha256": sealed_sha256(run.record),
            "attestations": attached,
        }
    return "passed", found.result.model_copy(update=update), ""


def _built(told: BuildResult, registry: Registry, run: CellRelease) -> Mapping[str, object]:
    repository = run.names.staging_model
    digest = push_image(registry, repository, run.cell.id.encode())
    *parents, model = told.images
    model = model.model_copy(
        update={
            "repository": repository,
            "manifest_digest": digest,
            "config_digest": registry.config_digest(repository, digest),
        }
    )
    return {"images": (*parents, model), "builder": run.world.engine().builder}


def told_stages() -> dict[StageName, Callable[[CellRelease, StageLog], Ended]]:
    """What stands in for `pipeline.steps.FLOW`."""
    told = {stage: partial(_told, stage, read_record(SOURCE)) for stage in TOLD}
    return {**FLOW, **told}


def _make() -> int:
    vars(flow_module)["FLOW"] = told_stages()
    return main(["release", "--release", RELEASE])


if __name__ == "__main__":
    sys.exit(_make())
