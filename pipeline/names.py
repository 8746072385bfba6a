"""Every name under which the world sees a cell, made in one place. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline.cell import Cell
from pipeline.cells import product
from pipeline.matrix import Matrix, Target
from pipeline.matrix_names import Broken

Layer = Literal["base", "runtime", "model"]
PREFIX = "org.opencontainers.image"
INDEXES = "releases"  # the repository beside the public ones


@dataclass(frozen=True, kw_only=True)
class Names:
    """Repositories are without the registry's host. The tag of an image is the name of its release."""

    host: str
    staging_host: str
    public: str
    staging_base: str
    staging_runtime: str
    staging_model: str
    hub: str  # model repository, without its owner
    alias: str | None  # FlagRelease's long name of the image; None where a fact of it is not known

    @property
    def public_repositories(self) -> tuple[str, ...]:
        return (self.public, *([self.alias] if self.alias else []))


def names(cell: Cell, target: Target) -> Names:
    host, _, prefix = target.registry.partition("/")
    staging_host, _, staging_prefix = (
        target.staging.partition("/") if target.staging else (host, "", f"{prefix}/staging")
    )
    alias = long_name(cell)
    return Names(
        host=host,
        staging_host=staging_host,
        public=f"{prefix}/flagrelease_{cell.chip_id}_{cell.model_id}",
        staging_base=f"{staging_prefix}/{cell.chip_id}/base",
        staging_runtime=f"{staging_prefix}/{cell.chip_id}/runtime",
        staging_model=f"{staging_prefix}/{cell.chip_id}/{cell.model_id}",
        hub=hub_name(cell),
        alias=f"{prefix}/{alias}" if alias else None,
    )


def index_repository(target: Target) -> str:
    """Where the release indexes of a target are, without its host."""
    return f"{target.registry.partition('/')[2]}/{INDEXES}"


def trial_repositories(target: Target) -> tuple[str, str]:
    """Where `doctor` tries what this account may do: in staging and in public, each with its host."""
    staging = target.staging or f"{target.registry}/staging"
    return f"{staging}/doctor", f"{target.registry}/doctor"


def hub_name(cell: Cell) -> str:
    """`<Model>[-<vendor>]-FlagOS`. FlagRelease leaves NVIDIA out; older names put the vendor last."""
    model = cell.model.hub_name or cell.model.title
    vendor = cell.chip_id if cell.chip.hub_suffix is None else cell.chip.hub_suffix
    return "-".join(part for part in (model, vendor, "FlagOS") if part)


def shared_hub_names(matrix: Matrix) -> Iterator[Broken]:
    """Cells that would write each other's cards over, for a hub takes them for one.

    A cell that the matrix excludes leaves its name to another, which may replace it. One that no node can serve keeps
    it: that is found out of facts, and a fact that becomes known would make two of one name.
    """
    known: dict[str, Cell] = {}
    excluded = {entry.cell for entry in matrix.cells.exclude}
    for cell in (one for one in product(matrix) if one.id not in excluded):
        name = hub_name(cell)
        other = known.setdefault(name.lower(), cell)  # hubs take no notice of case
        if other is not cell:
            fault = f"{cell.id} would have the name of {other.id} on hubs: {name}"
            hint = "give one of them another title or hub_name, or another hub_suffix of the chip"
            yield ("models", cell.model_id), fault, hint


def long_name(cell: Cell) -> str | None:
    """FlagRelease's name of an image, which tells what is in it. A fact that is not known gives no name, never an `x`.

    `+` becomes `.`, as in FlagRelease's code; its written rule says `-`. Source: facts/flagos-stack.md, section 8.
    """
    chip, words = cell.chip, cell.chip.long_name
    packages = {**chip.packages, **_compiler_packages(cell)}
    if words is None or chip.driver is None or "flag-gems" not in packages:
        return None
    parts = {
        "model": cell.model.hub_name or cell.model.title,
        "tree": packages.get("flagtree", "none"),
        "gems": packages["flag-gems"],
        "scale": packages["flag-scale"],
        "cx": packages.get("flagcx", "none"),
        "python": chip.python,
        "torch": f"{words.torch}-{packages['torch']}",
        "pcp": words.sdk,
        "gpu": words.gpu,
        "arc": chip.arch,
        "driver": chip.driver,
    }
    facts = "-".join(f"{name}_{value}" for name, value in parts.items())
    return f"flagrelease-{words.vendor}-release-{facts}".lower().replace("+", ".")


def _compiler_packages(cell: Cell) -> dict[str, str]:
    compiler = cell.chip.stacks[cell.chip.released].compiler
    return cell.chip.compilers[compiler].packages if compiler else {}


def labels(cell: Cell, layer: Layer, key: str, *, revision: str, created: str) -> dict[str, str]:
    """OCI labels of every layer, with our key and cell."""
    what = {"base": "base", "runtime": "serving runtime", "model": cell.model.title}[layer]
    return {
        f"{PREFIX}.title": f"FlagOS {what} for {cell.chip.title.en}",
        f"{PREFIX}.vendor": cell.project.vendor,
        f"{PREFIX}.version": cell.chip.vllm,
        f"{PREFIX}.revision": revision,
        f"{PREFIX}.source": cell.project.source,
        f"{PREFIX}.created": created,
        f"{PREFIX}.licenses": "Apache-2.0",
        "io.flagos.release.key": key,
        "io.flagos.release.cell": cell.id if layer == "model" else cell.chip_id,
    }
