"""A root file system from Debian packages (mmdebstrap): the base where no public registry can be reached."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from pipeline.chip import Base
from pipeline.errors import UsageError
from pipeline.world.command import run

# One fixed time for all files, so that the same packages give the same archive.
SOURCE_DATE_EPOCH = "1767225600"


def bootstrap_arguments(base: Base, arch: str) -> tuple[str, ...]:
    """What mmdebstrap is told, without the archive's name. Part of the build key."""
    if base.debian is None:
        raise UsageError("this base is a public image, not a Debian suite")
    keep_out = ("man", "info", "doc", "locale", "lintian", "bug")
    return (
        "mmdebstrap",
        "--quiet",
        "--variant=minbase",
        f"--architectures={arch}",
        f"--include={','.join(base.include)}",
        '--aptopt=Apt::Install-Recommends "false"',
        '--aptopt=Acquire::Languages "none"',
        *(f"--dpkgopt=path-exclude=/usr/share/{folder}/*" for folder in keep_out),
        "--dpkgopt=path-include=/usr/share/doc/*/copyright",
        '--customize-hook=rm -rf "$1"/var/lib/apt/lists/* "$1"/var/cache/apt/* "$1"/var/log/*'
        ' "$1"/etc/hostname "$1"/etc/resolv.conf',
        base.debian,
    )


def download_packages(names: Sequence[str], folder: Path) -> tuple[Path, ...]:
    """Debian packages of this machine's release as files, without what they depend on."""
    folder.mkdir(parents=True, exist_ok=True)
    run(
        ["env", "-C", folder, "apt-get", "download", *names],
        doing=f"downloading {', '.join(names)}",
        hint="run apt-get update, and see that this machine runs Debian",
    )
    return tuple(sorted(folder.glob("*.deb")))


def bootstrap(
    base: Base, arch: str, archive: Path, *, log: Path, on_line: Callable[[str], None]
) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    run(
        [*bootstrap_arguments(base, arch), archive],
        doing=f"bootstrapping Debian {base.debian}",
        hint="see that the Debian mirror answers (apt-get update); ./bootstrap installs mmdebstrap",
        log=log,
        # Its own temporary folder lies beside the archive, to be removed with it.
        environment={"SOURCE_DATE_EPOCH": SOURCE_DATE_EPOCH, "TMPDIR": str(archive.parent)},
        on_line=on_line,
    )
