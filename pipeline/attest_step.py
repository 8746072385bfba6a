"""How the stage attest ends: signed where the target names a key, else plainly unsigned."""

from __future__ import annotations

from pipeline.cell_release import CellRelease, Ended
from pipeline.reporter import StageLog
from pipeline.results import AttestResult
from pipeline.stages.attest import Subject, attest, place_of
from pipeline.statements import sealed_sha256
from pipeline.world.inventory import read_inventory
from pipeline.world.keyless import is_asked_for, sign_keyless
from pipeline.world.signing_key import signing_key


def attest_image(run: CellRelease, log: StageLog) -> Ended:
    digest, names = run.built.model.manifest_digest, run.names
    if digest is None:
        return "not_applicable", _nothing(run), ""
    release_key = run.record.about.release_key
    key = signing_key(release_key) if release_key else None
    registry, repository = run.world.registry(names.staging_host), run.built.model.repository
    result = attest(
        run.record,
        run.built,
        Subject(
            registry=registry,
            repository=repository,
            digest=digest,
            name=f"{names.host}/{names.public}",
        ),
        lambda: read_inventory(run.world.engine(), run.image),
        key,
    )
    if is_asked_for():
        sign_keyless(place_of(registry, repository, digest), key.public if key else None)
    log.say(f"{result.packages} packages in the bill of materials")
    for one in result.attestations:
        log.say(f"attached {one.kind}: {one.manifest_digest}")
    log.say(f"signed by {result.signed_by}" if key else "signed by nobody: the target has no key")
    return "passed", result, ""


def _nothing(run: CellRelease) -> AttestResult:
    """An image in no registry has nothing to attach to."""
    return AttestResult(
        digest=run.built.model.config_digest,
        record_sha256=sealed_sha256(run.record),
        attestations=(),
        signed_by=None,
        signature_tags=(),
        packages=0,
        build_level=0,
        why_level="the image is in no registry, so nothing could be attached to it",
        seconds={},
    )
