"""A folder as a hub: one folder per model below it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.canonical import write_whole
from pipeline.errors import WorldError
from pipeline.world.hub import Change, Repository, Terms


class FolderHub:
    """Everything lies in `<root>/<name>/`. It is public to whoever may read the folder."""

    is_private = False
    takes_weights = False

    def __init__(self, root: Path, name: str = "") -> None:
        """`name` as the matrix gives it: a record then holds in another checkout too."""
        self.root = root
        self.name = name or f"folder:{root}"

    def location(self, name: str) -> str:
        return str(self.root / name)

    def look(self, name: str) -> Repository | None:
        folder = self.root / name
        with self._using(folder):
            if not folder.is_dir():
                return None
            found = (path for path in folder.rglob("*") if path.is_file())
            return Repository(files={path.relative_to(folder).as_posix(): None for path in found})

    def create(self, name: str, terms: Terms) -> None:  # noqa: ARG002 a folder has no terms
        with self._using(self.root / name):
            (self.root / name).mkdir(parents=True, exist_ok=True)

    def commit(self, name: str, change: Change) -> None:
        folder = self.root / name
        with self._using(folder):
            for path, file in change.files.items():
                content = file.content
                data = content if isinstance(content, bytes) else content.read_bytes()
                write_whole(folder / path, data)
            for path in change.removed:
                (folder / path).unlink()

    def read(self, name: str, path: str) -> bytes | None:
        with self._using(self.root / name):
            file = self.root / name / path
            return file.read_bytes() if file.is_file() else None

    @contextmanager
    def _using(self, folder: Path) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise WorldError(
                "publishing a card: the folder cannot be written or read back",
                where=str(folder),
                details=str(error),
                hint="check its rights and free space, or name another folder in `hubs`",
            ) from error
