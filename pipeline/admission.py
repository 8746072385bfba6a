"""Who may go out under the name of a release: the candidates whose gates all passed and that nobody withdrew."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date

from pipeline.errors import StageRefusedError
from pipeline.gates import promotable_digest
from pipeline.record import Record
from pipeline.world.registry import Registry
from pipeline.world.shelf import Shelf


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """A tested image, where it is, and where it is to go."""

    record: Record
    source: Registry
    source_repository: str
    public: str
    alias: str | None = None  # a second repository, under FlagRelease's long name

    @property
    def cell(self) -> str:
        return self.record.cell


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """A candidate whose gates all passed for this digest."""

    candidate: Candidate
    digest: str

    @property
    def waiver(self) -> str | None:
        """Where one was needed."""
        found = self.candidate.record.waiver
        return found.sentence if found else None

    @property
    def repositories(self) -> tuple[str, ...]:
        one = self.candidate
        return (one.public, one.alias) if one.alias else (one.public,)


@dataclass(frozen=True, kw_only=True)
class Release:
    """What is to be promoted under one name. `left_out`: cells that did not get this far, and why."""

    name: str
    candidates: Sequence[Candidate]
    left_out: Mapping[str, str]
    allow_partial: bool = False


def admitted(
    release: Release, shelf: Shelf, today: date
) -> tuple[tuple[Accepted, ...], tuple[str, ...]]:
    """Who goes out, and who is left out and why. Raises StageRefusedError unless it is all, or parts are allowed."""
    candidates = sorted(release.candidates, key=lambda one: one.cell)
    judged = shelf.registry.each(lambda one: _judged(one, shelf, today), candidates)
    accepted = [one for one in judged if isinstance(one, Accepted)]
    refusals = [one for one in judged if isinstance(one, StageRefusedError)]
    left_out = [f"{cell}: {why}" for cell, why in sorted(release.left_out.items())]
    left_out += [f"{one.where}: {', '.join(one.details.splitlines())}" for one in refusals]
    if accepted and (release.allow_partial or not left_out):
        return tuple(accepted), tuple(left_out)
    if len(left_out) == len(refusals) == 1 and not accepted:
        raise refusals[0]
    selected = len(accepted) + len(left_out)
    raise StageRefusedError(
        f"promoting release {release.name}: {len(left_out)} of {selected} cells may not go out, so none does",
        details="\n".join(left_out),
        hint="mend these, or add --allow-partial, which promotes the others and records who was left out",
    )


def _judged(candidate: Candidate, shelf: Shelf, today: date) -> Accepted | StageRefusedError:
    try:
        return _accept(candidate, shelf, today)
    except StageRefusedError as refused:
        return refused


def _accept(candidate: Candidate, shelf: Shelf, today: date) -> Accepted:
    found = Accepted(candidate=candidate, digest=promotable_digest(candidate.record, today))
    refuse_yanked(found, shelf)
    return found


def refuse_yanked(one: Accepted, shelf: Shelf) -> None:
    if yanked := shelf.yanks(one.candidate.public, one.digest):
        raise StageRefusedError(
            f"promoting release {one.candidate.record.release}: this very image was withdrawn",
            where=one.candidate.cell,
            details="\n".join(stone.sentence for stone in yanked),
            hint="build another one",
        )
