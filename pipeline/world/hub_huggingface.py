"""Hugging Face as a hub, through huggingface_hub."""

from __future__ import annotations

import tempfile
from pathlib import Path

from pipeline.hub_accounts import HubAccount
from pipeline.world.hub import Change, Repository, Terms
from pipeline.world.hub_account import PASSING, AccountHub, Answer, account, quiet
from pipeline.world.standing import TOKENS


class HuggingFaceHub(AccountHub):
    """Repositories of one organisation. A commit holds all files of a change, or none."""

    def __init__(self, settings: HubAccount) -> None:
        # Slow to import, and only who publishes needs it.
        from huggingface_hub import HfApi
        from huggingface_hub.utils.tqdm import disable_progress_bars

        super().__init__(
            account(settings, title="Hugging Face", variable=TOKENS["huggingface"]),
            "huggingface",
            _answer,
        )
        self._api = HfApi(endpoint=settings.endpoint, token=self._account.token)
        disable_progress_bars()
        quiet("huggingface_hub")

    def look(self, name: str) -> Repository | None:
        from huggingface_hub.errors import RepositoryNotFoundError
        from huggingface_hub.hf_api import RepoFile

        repository = self._account.repository(name)
        with self._asking("looking at the repository", name):
            try:
                info = self._api.model_info(repository)
            except RepositoryNotFoundError:
                return None
            tree = self._api.list_repo_tree(repository, recursive=True, revision=info.sha)
            return Repository(
                files={
                    entry.path: entry.lfs.sha256 if entry.lfs else None
                    for entry in tree
                    if isinstance(entry, RepoFile)
                },
                is_private=bool(info.private),
                head=info.sha or "",
            )

    def create(self, name: str, terms: Terms) -> None:
        with self._asking("making the repository", name):
            self._api.create_repo(
                self._account.repository(name), private=terms.is_private, exist_ok=True
            )

    def commit(self, name: str, change: Change) -> None:
        from huggingface_hub import CommitOperationAdd, CommitOperationDelete

        with self._asking("committing", name):
            self._api.create_commit(
                self._account.repository(name),
                operations=[
                    *(
                        CommitOperationAdd(path_in_repo=path, path_or_fileobj=file.content)
                        for path, file in change.files.items()
                    ),
                    *(CommitOperationDelete(path_in_repo=path) for path in change.removed),
                ],
                commit_message=change.message,
                parent_commit=change.head or None,
            )

    def read(self, name: str, path: str) -> bytes | None:
        from huggingface_hub.errors import EntryNotFoundError

        with self._asking(f"reading {path}", name), tempfile.TemporaryDirectory() as folder:
            try:
                file = self._api.hf_hub_download(
                    self._account.repository(name), path, local_dir=folder
                )
            except EntryNotFoundError:
                return None
            return Path(file).read_bytes()


def _answer(error: BaseException) -> Answer | None:
    from httpx2 import TransportError
    from huggingface_hub.errors import HfHubHTTPError

    if isinstance(error, HfHubHTTPError):
        status, after = error.response.status_code, error.response.headers.get("Retry-After", "")
        return Answer(
            status=status,
            is_passing=status in PASSING or status >= 500,
            retry_after_s=float(after) if after.isdigit() else 0,
        )
    if isinstance(error, ValueError):  # what it says of a card's front matter
        return Answer(status=400, is_passing=False)
    is_transport = isinstance(error, TransportError | ConnectionError | TimeoutError)
    return Answer(status=None, is_passing=True) if is_transport else None
