"""Rows of two stacks side by side, item by item and run by run. What is not there scores 0 and stays."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from pipeline.accuracy_result import ItemRow, Troubles
from pipeline.gate.evidence import Evidence
from pipeline.gate.paired import Booleans, Floats


@dataclass(frozen=True, kw_only=True)
class Side:
    """One stack's answers to one benchmark, each array (item, run)."""

    scores: Floats  # 0 where it failed, is missing, was cut or cannot be read
    is_failed: Booleans
    is_missing: Booleans
    is_truncated: Booleans
    is_unreadable: Booleans
    tokens: Floats

    @property
    def is_absent(self) -> Booleans:
        return self.is_failed | self.is_missing

    @property
    def is_unusable(self) -> Booleans:
        return self.is_absent | self.is_truncated | self.is_unreadable

    def troubles(self, runs: int) -> Troubles:
        return Troubles(
            failed=int(self.is_failed[:, :runs].sum()),
            missing=int(self.is_missing[:, :runs].sum()),
            truncated=int(self.is_truncated[:, :runs].sum()),
            unreadable=int(self.is_unreadable[:, :runs].sum()),
        )


@dataclass(frozen=True, kw_only=True)
class Pairs:
    """Both stacks on one benchmark, over the items and runs that either of them has rows of."""

    benchmark: str
    clusters: tuple[str, ...]  # by item
    reference: Side
    candidate: Side
    is_generated: bool

    @property
    def runs(self) -> int:
        return int(self.reference.scores.shape[1])

    def evidence(self, runs: int) -> Evidence:
        """What the first `runs` runs say of the scores."""
        # A fault of the reference must not help a candidate: it is compared with a right answer.
        yardstick = np.where(self.reference.is_absent, 1.0, self.reference.scores)
        return _evidence(
            yardstick[:, :runs],
            self.candidate.scores[:, :runs],
            self.clusters,
            float(self.reference.scores[:, :runs].mean()),
        )

    def usable(self, runs: int) -> Evidence:
        """The same of having a usable answer at all."""
        reference, candidate = (
            (~side.is_unusable[:, :runs]).astype(float) for side in (self.reference, self.candidate)
        )
        return _evidence(reference, candidate, self.clusters, float(reference.mean()))


def pair(rows: Sequence[ItemRow], stacks: tuple[str, str], *, is_generated: bool) -> Pairs:
    """Rows of one benchmark, at least one of them; the first stack is the reference."""
    found: dict[tuple[str, str, int], ItemRow] = {
        (row.stack, row.item, row.repeat): row for row in rows
    }
    clusters = {row.item: row.cluster or row.item for row in rows}
    items, runs = sorted(clusters), 1 + max(row.repeat for row in rows)
    reference, candidate = (
        _side(
            [[found.get((stack, item, run)) for run in range(runs)] for item in items],
            is_generated=is_generated,
        )
        for stack in stacks
    )
    return Pairs(
        benchmark=rows[0].benchmark,
        clusters=tuple(clusters[item] for item in items),
        reference=reference,
        candidate=candidate,
        is_generated=is_generated,
    )


def _side(table: Sequence[Sequence[ItemRow | None]], *, is_generated: bool) -> Side:
    def marks(claim: str) -> Booleans:
        return np.array([[getattr(_Answer(row), claim) for row in line] for line in table], bool)

    scores = np.array([[_Answer(row).score for row in line] for line in table], float)
    is_truncated, is_unreadable = marks("is_cut") & is_generated, marks("is_unreadable")
    return Side(
        scores=np.where(is_truncated | is_unreadable, 0.0, scores),
        is_failed=marks("is_failed"),
        is_missing=marks("is_missing"),
        is_truncated=is_truncated,
        is_unreadable=is_unreadable,
        tokens=np.array([[row.tokens if row else 0 for row in line] for line in table], float),
    )


@dataclass(frozen=True)
class _Answer:
    row: ItemRow | None

    @property
    def score(self) -> float:
        return self.row.score if self.row and not self.row.error else 0.0

    @property
    def is_missing(self) -> bool:
        return self.row is None

    @property
    def is_failed(self) -> bool:
        return self.row is not None and bool(self.row.error)

    @property
    def is_cut(self) -> bool:
        return self.row is not None and not self.row.error and self.row.finish_reason == "length"

    @property
    def is_unreadable(self) -> bool:
        return self.row is not None and not self.row.error and self.row.answer == ""


def _evidence(
    reference: Floats, candidate: Floats, clusters: Sequence[str], score: float
) -> Evidence:
    """Arrays (item, run) become one benchmark's evidence, of shape (1,)."""
    changes = candidate - reference
    means = changes.mean(axis=1)
    n, runs = changes.shape
    names, group = np.unique(np.asarray(clusters), return_inverse=True)
    sums = np.bincount(group, weights=means - means.mean())
    groups = len(names)
    spread = np.sqrt(groups / max(groups - 1, 1) * np.sum(sums**2)) / n
    is_binary = bool(
        np.all((reference * (1 - reference) == 0) & (candidate * (1 - candidate) == 0))
    )
    values: Mapping[str, float] = {
        "n": n,
        "runs": runs,
        "difference": means.mean(),
        "error": spread,
        "clusters": groups,
        "lost": int(np.sum(changes < 0)),
        "gained": int(np.sum(changes > 0)),
        "reference": score,
        "reference_at_best": reference.mean(),
    }
    return Evidence(
        **{name: np.array([float(value)]) for name, value in values.items()},
        is_counts=np.array([is_binary and runs == 1 and groups == n]),
    )
