"""What the items of some benchmarks say at one look, and the bounds that follow. Arrays (…, benchmark)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from pipeline.gate.paired import (
    Booleans,
    Floats,
    mcnemar_harm,
    tango_lower_bound,
    z_of,
)


@dataclass(frozen=True, kw_only=True)
class Evidence:
    """Item means over the runs asked so far, summed up for each benchmark.

    `difference` is the mean over items of candidate less reference. Right-or-wrong items that
    were asked once and share nothing are judged by their counts, all others by mean and error.
    """

    n: Floats  # items
    runs: Floats  # of every item
    difference: Floats
    error: Floats  # standard error of `difference`, over clusters where items share something
    clusters: Floats  # how many independent groups of items there are
    lost: Floats  # item runs that only the reference got right
    gained: Floats
    reference: Floats  # its mean score
    reference_at_best: Floats  # the same if what it left unanswered were right
    is_counts: Booleans

    @classmethod
    def joined(cls, parts: Sequence[Evidence]) -> Evidence:
        """Benchmarks side by side on the last axis."""
        return cls(
            **{
                field.name: np.concatenate([getattr(part, field.name) for part in parts], axis=-1)
                for field in fields(cls)
            }
        )

    def as_draw(self) -> Evidence:
        """The same with a leading axis of one release."""
        return Evidence(**{f.name: getattr(self, f.name)[np.newaxis] for f in fields(self)})

    def where(self, mask: Booleans, other: Evidence) -> Evidence:
        """This evidence where `mask` holds, `other` elsewhere."""
        return Evidence(
            **{
                field.name: np.where(mask, getattr(self, field.name), getattr(other, field.name))
                for field in fields(self)
            }
        )

    def mirrored(self) -> Evidence:
        """The stacks exchanged, as far as differences go."""
        changed = {"difference": -self.difference, "lost": self.gained, "gained": self.lost}
        return Evidence(
            **{
                field.name: changed.get(field.name, getattr(self, field.name))
                for field in fields(self)
            }
        )

    def lower_bound(self, alpha: float) -> Floats:
        """One-sided bound of the difference at level `alpha`."""
        counted = tango_lower_bound(
            np.where(self.is_counts, self.lost, 0),
            np.where(self.is_counts, self.gained, 0),
            self.n,
            z_of(alpha),
        )
        return counted if np.all(self.is_counts) else self._chosen(counted, self._t_bound(alpha))

    def upper_bound(self, alpha: float) -> Floats:
        return -self.mirrored().lower_bound(alpha)

    def p_harm(self) -> Floats:
        """One-sided p of "the candidate is not worse"."""
        counted = mcnemar_harm(
            np.where(self.is_counts, self.lost, 0), np.where(self.is_counts, self.gained, 0)
        )
        return counted if np.all(self.is_counts) else self._chosen(counted, self._t_harm())

    def p_gain(self) -> Floats:
        return self.mirrored().p_harm()

    def _chosen(self, counted: Floats, measured: Floats) -> Floats:
        return np.where(self.is_counts, counted, measured)

    @property
    def _whole_item(self) -> Floats:
        """What one item moves the mean by, in the units of `_t_bound`.

        Estimated variances are no guide where almost nothing flips: no bound is narrower than the
        one of as many whole flips as the quantile squared. Without any flip that is -t²/(n-1), for
        Tango's -z²/(n+z²); and where items share nothing, an answer that goes from right to wrong
        never raises a bound.
        """
        return self.clusters / (np.maximum(self.clusters - 1, 1) * self.n)

    def _t_bound(self, alpha: float) -> Floats:
        from scipy.special import stdtrit  # half a second to import; not needed for counts

        t = stdtrit(np.maximum(self.clusters - 1, 1), 1 - alpha)
        error = np.maximum(self.error, t * (1 - self.difference) * self._whole_item)
        bound = np.where(self.clusters > 1, self.difference - t * error, -1.0)
        return np.asarray(np.maximum(bound, -1.0))

    def _t_harm(self) -> Floats:
        from scipy.special import stdtr

        loss = -self.difference
        with np.errstate(divide="ignore", invalid="ignore"):
            measured = loss / self.error
            at_most = np.sqrt(loss / ((1 - loss) * self._whole_item))
        t = np.where(loss > 0, np.fmin(measured, at_most), 0.0)
        p = stdtr(np.maximum(self.clusters - 1, 1), -t)
        return np.where((loss > 0) & (self.clusters > 1), p, 1.0)
