"""verify as a command: an image of any registry, a public key, and a table of what was looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pipeline.errors import StageRefusedError, UsageError
from pipeline.reporter import Reporter
from pipeline.signatures import PublicKey
from pipeline.smoke_result import Check
from pipeline.stages.attest import image_labels, place_of
from pipeline.stages.card import card
from pipeline.stages.verify import Asked, verify
from pipeline.statements import PREDICATES
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
    reference, public_key = parse_reference(image), _public_key(key) if key else None
    registry = Registry(reference.registry)
    place = place_of(registry, reference.repository, reference.version)
    checks = verify(
        Asked(
            place=place,
            tag=reference.tag,
            key=public_key,
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
            hint=_what_to_do(checks, key),
        )


def _what_to_do(checks: Sequence[Check], key: Path | None) -> str:
    """Where the key vouches for nothing at all, it may be another one's."""
    found = {one.name: one.passed for one in checks}
    if any(found[kind] for kind in PREDICATES):
        return "do not run this image before somebody explains them"
    which = f"is {key} the key of who released it?" if key else "if it is signed, give --key FILE;"
    return f"{which} do not run this image before its own key vouches for it"


def _public_key(path: Path) -> PublicKey:
    try:
        return PublicKey.read(path.read_text("ascii"), str(path))
    except (OSError, UnicodeDecodeError, UsageError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is no P-256 public key in PEM"
        raise UsageError(
            f"the public key cannot be read: {why}",
            where=str(path),
            hint="who releases publishes it; here `public_key` of the target in matrix.yaml names its file",
        ) from error
