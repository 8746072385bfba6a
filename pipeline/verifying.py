"""verify as a command: an image of any registry, a public key, and a table of what was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import StageRefusedError, UsageError
from pipeline.reporter import Reporter
from pipeline.signatures import PublicKey
from pipeline.stages.attest import image_labels, place_of
from pipeline.stages.card import card
from pipeline.stages.verify import Asked, verify
from pipeline.templates import Templates
from pipeline.world.oci import parse_reference
from pipeline.world.registry import Registry


def verify_image(
    image: str,
    *,
    key: Path | None,
    unsigned: bool,
    cards: Sequence[Path],
    templates: Templates,
    report: Reporter,
) -> None:
    """Raises StageRefusedError with every check that failed."""
    if (key is None) is not unsigned:
        raise UsageError(
            "say what may vouch for the image: a public key, or nobody",
            where=image,
            hint="--key FILE for a signed release; --unsigned for one that nobody signed, such as your own",
        )
    if missing := [str(path) for path in cards if not path.is_file()]:
        raise UsageError("there is no such file", where=", ".join(missing))
    reference = parse_reference(image)
    registry = Registry(reference.registry)
    place = place_of(registry, reference.repository, reference.version)
    checks = verify(
        Asked(
            place=place,
            tag=reference.tag,
            key=_public_key(key) if key else None,
            labels=lambda: image_labels(place),
            made=lambda record, withdrawn: card(record, templates, withdrawn),
            cards=cards,
        )
    )
    rows = [(one.name, "ok" if one.passed else "FAILED", one.seen) for one in checks]
    report.table(("check", "result", "what was seen"), rows)
    failed = [one for one in checks if not one.passed]
    if failed:
        raise StageRefusedError(
            f"{len(failed)} of {len(checks)} checks failed",
            where=f"{registry.host}/{reference.repository}@{place.image.digest}",
            details="\n".join(f"{one.name}: {one.seen}" for one in failed),
            hint="do not run this image before somebody explains them",
        )


def _public_key(path: Path) -> PublicKey:
    try:
        return PublicKey.read(path.read_text("ascii"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError("the public key cannot be read", where=str(path)) from error
