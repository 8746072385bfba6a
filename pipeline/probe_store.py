"""Answers of probes on disk, so that an interrupted search does not ask again."""

from __future__ import annotations

from pathlib import Path

from pipeline.canonical import canonical, sha256_bytes, write_whole
from pipeline.culprits import ProbeAnswer, Subject

Operators = frozenset[str]


class ProbeStore:
    """One file a probe, named by what was asked of what."""

    def __init__(self, folder: Path, subject: Subject) -> None:
        self._folder = folder
        self._subject = subject.model_dump(mode="json")

    def get(self, profile: str, enabled: Operators) -> ProbeAnswer | None:
        path = self._path(profile, enabled)
        try:
            return ProbeAnswer.model_validate_json(path.read_bytes())
        except (OSError, ValueError):
            return None  # never asked, or not written by this version

    def put(self, profile: str, enabled: Operators, answer: ProbeAnswer) -> None:
        write_whole(self._path(profile, enabled), canonical(answer.model_dump(mode="json")))

    def _path(self, profile: str, enabled: Operators) -> Path:
        parts = {"subject": self._subject, "profile": profile, "enabled": sorted(enabled)}
        return self._folder / f"{sha256_bytes(canonical(parts))}.json"
