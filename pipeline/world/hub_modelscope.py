"""ModelScope as a hub, through modelscope."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from requests import RequestException

from pipeline.hub_accounts import HubAccount
from pipeline.world.hub import Change, HubFile, Repository, Terms
from pipeline.world.hub_account import PASSING, AccountHub, Answer, account, quiet
from pipeline.world.standing import TOKENS

MODEL = "model"
REVISION = "master"
# Larger files of weights are stored apart (LFS), as in the client's own uploads.
INLINE_BYTES = 64 * 1024


class ModelScopeHub(AccountHub):
    """Repositories of one organisation. A commit holds all files of a change, or none.

    The client's upload_folder is not used: it commits what it could upload when a file fails, commits again when the
    answer to a commit is lost, and tells neither status nor cause.
    """

    def __init__(self, settings: HubAccount) -> None:
        # Slow to import, and only who publishes needs it.
        from modelscope.hub.api import HubApi

        token = account(settings, title="ModelScope", variable=TOKENS["modelscope"])
        super().__init__(token, "modelscope", _answer, pages="models/")
        self._api = HubApi(endpoint=settings.endpoint, token=self._account.token)
        quiet("modelscope_hub")

    def look(self, name: str) -> Repository | None:
        from modelscope.hub.constants import ModelVisibility
        from modelscope.hub.errors import NotExistError

        repository = self._account.repository(name)
        with self._asking("looking at the repository", name):
            try:
                info = self._api.get_repo(repository, repo_type=MODEL)
                found = self._api.list_repo_files(repository, MODEL, revision=REVISION)
            except NotExistError:
                return None
            return Repository(
                files={file.path: file.sha256 for file in found if file.type != "tree"},
                is_private=info.visibility != ModelVisibility.PUBLIC,
            )

    def create(self, name: str, terms: Terms) -> None:
        with self._asking("making the repository", name):
            self._api.create_repo(
                self._account.repository(name),
                visibility="private" if terms.is_private else "public",
                license=terms.license,
                exist_ok=True,
            )

    def commit(self, name: str, change: Change) -> None:
        repository = self._account.repository(name)
        with self._asking("committing", name):
            self._upload_large(repository, change)
            self._api.legacy.create_commit(
                repository,
                MODEL,
                [
                    *(_written(path, file) for path, file in change.files.items()),
                    *(_action("delete", path, "normal") for path in change.removed),
                ],
                commit_message=change.message,
                revision=REVISION,
            )

    def read(self, name: str, path: str) -> bytes | None:
        from modelscope.hub.errors import NotExistError

        repository = self._account.repository(name)
        with self._asking(f"reading {path}", name):
            try:
                with self._api.legacy.download_stream(repository, MODEL, path, REVISION) as found:
                    return bytes(found.content)
            except NotExistError:
                return None

    def _upload_large(self, repository: str, change: Change) -> None:
        """What the hub has under its hash, from an upload that was interrupted too, is not sent again."""
        hub = self._api.legacy
        for file in change.files.values():
            if isinstance(file.content, Path) and _is_large(file):
                # One by one: an address to upload to is soon worth nothing.
                asked = [{"oid": file.sha256, "size": file.size_bytes}]
                if url := hub.validate_blobs(repository, MODEL, asked).get(file.sha256):
                    with file.content.open("rb") as content:
                        hub.upload_blob(url, content, file.size_bytes)


def _is_large(file: HubFile) -> bool:
    return isinstance(file.content, Path) and file.size_bytes > INLINE_BYTES


def _written(path: str, file: HubFile) -> dict[str, Any]:
    if _is_large(file):
        return _action("create", path, "lfs", size=file.size_bytes, sha256=file.sha256)
    data = file.content.read_bytes() if isinstance(file.content, Path) else file.content
    content = base64.b64encode(data).decode()
    return _action("create", path, "normal", size=len(data), content=content, encoding="base64")


def _action(action: str, path: str, kind: str, **values: str | int) -> dict[str, Any]:
    """One action of a commit, with every field that the client's own uploads send."""
    empty = {"size": 0, "sha256": "", "content": "", "encoding": ""}
    return {"action": action, "path": path, "type": kind, **empty, **values}


def _answer(error: BaseException) -> Answer | None:
    from modelscope.hub.errors import HubError

    if not isinstance(error, HubError | RequestException):
        return None
    status = getattr(error, "status_code", None)
    is_passing = status in PASSING or getattr(error, "retryable", True)
    after = getattr(error, "retry_after", None)
    return Answer(status=status, is_passing=is_passing, retry_after_s=float(after or 0))
