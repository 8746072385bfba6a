"""What is said of an image: in-toto statements with its bill of materials, its provenance, and its record. Pure.

Formats: in-toto Statement v1 (https://in-toto.io/Statement/v1), SLSA provenance v1 (https://slsa.dev/provenance/v1).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any, Literal

from pipeline.canonical import canonical, sha256_bytes
from pipeline.names import PREFIX
from pipeline.record import Record, record_bytes
from pipeline.results import BuildResult

Kind = Literal["SBOM", "provenance", "record"]
OURS = "https://github.com/flagos-ai/FlagRelease"
STATEMENT = "https://in-toto.io/Statement/v1"
PREDICATES: Mapping[Kind, str] = {
    "SBOM": "https://cyclonedx.org/bom",
    "provenance": "https://slsa.dev/provenance/v1",
    "record": f"{OURS}/release-record/v1",
}
COSIGN_TYPES: Mapping[str, str] = {  # by what cosign calls those types that it knows
    PREDICATES["SBOM"]: "cyclonedx",
    PREDICATES["provenance"]: "slsaprovenance1",
}
LEVEL = 1
ATTESTED: Mapping[str, str | int] = {  # for who reads a card
    "bill": "CycloneDX 1.6",
    "provenance": "SLSA v1",
    "level": LEVEL,
    "bill_type": COSIGN_TYPES[PREDICATES["SBOM"]],
    "provenance_type": COSIGN_TYPES[PREDICATES["provenance"]],
    "record_type": PREDICATES["record"],
}
WHY_LEVEL = (
    "the provenance is complete and comes with the image, but who can start the build can also change the machine that"
    " makes it; level 2 asks for a hosted platform that makes and signs it by itself"
)


def statement(kind: Kind, digest: str, predicate: Any, name: str) -> bytes:
    """Of the image with this manifest digest."""
    return canonical(
        {
            "_type": STATEMENT,
            "subject": [{"name": name, "digest": {"sha256": digest.removeprefix("sha256:")}}],
            "predicateType": PREDICATES[kind],
            "predicate": predicate,
        }
    )


def provenance(record: Record, built: BuildResult, labels: Mapping[str, str]) -> dict[str, Any]:
    """From what was built and from the image's own labels, so that it is the same in every release of an image."""
    parts = record.stages.build.parts if record.stages.build else {}
    revision = labels.get(f"{PREFIX}.revision", "unknown")
    files = {name: value for name, value in parts.items() if _SHA256.fullmatch(value)}
    source: dict[str, Any] = {"uri": f"git+{labels.get(f'{PREFIX}.source', OURS)}@{revision}"}
    if _COMMIT.fullmatch(revision):
        source["digest"] = {"gitCommit": revision}
    return {
        "buildDefinition": {
            "buildType": f"{OURS}/build/v1",
            "externalParameters": {"cell": record.cell},
            "internalParameters": {
                **{name: value for name, value in parts.items() if name not in files},
                "claimedBuildLevel": {"level": LEVEL, "why": WHY_LEVEL},
            },
            "resolvedDependencies": [
                source,
                *(
                    {"name": f"{image.layer} image", "digest": _sha256(image.manifest_digest)}
                    for image in built.images
                    if image.layer != "model" and image.manifest_digest
                ),
                *({"name": name, "digest": {"sha256": files[name]}} for name in sorted(files)),
            ],
        },
        "runDetails": {
            "builder": {"id": f"{OURS}/maintainers-machine", "version": {"engine": built.builder}},
            "metadata": {
                "invocationId": built.model.key,
                "startedOn": labels.get(f"{PREFIX}.created", ""),
            },
        },
    }


def release_record(record: Record) -> dict[str, Any]:
    """The sealed record, whole, and what policies ask of it first."""
    accuracy = record.stages.accuracy
    verdict = accuracy.result.verdict if accuracy and accuracy.result else None
    return {
        "cell": record.cell,
        "release": record.release,
        "verdict": {
            "status": accuracy.status if accuracy else "not_run",
            "sentence": verdict.sentence if verdict else "",
        },
        "stages": {
            name: stage["status"]
            for name, stage in record.model_dump(mode="json")["stages"].items()
            if stage
        },
        "record": json.loads(sealed_bytes(record)),
    }


def sealed_bytes(record: Record) -> bytes:
    """The record as it is attested."""
    return record_bytes(record.sealed)


def stated_record(predicate: Mapping[str, Any]) -> bytes:
    """The bytes of the record in a predicate; a record of an older pipeline keeps them."""
    return canonical(predicate["record"]) + b"\n"


def stated_release(predicate: Mapping[str, Any]) -> str:
    return str(predicate["record"]["release"])


def sealed_sha256(record: Record) -> str:
    return sha256_bytes(sealed_bytes(record))


_SHA256 = re.compile(r"[0-9a-f]{64}")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def _sha256(digest: str | None) -> dict[str, str]:
    return {"sha256": str(digest).removeprefix("sha256:")}
