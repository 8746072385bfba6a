"""A second signature by the identity of a hosted workflow, through cosign and Sigstore's public services.

Untested: it needs GitHub Actions, its token and the network (docs/attestations.md).
"""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path

from pipeline.signatures import PublicKey
from pipeline.statements import COSIGN_TYPES
from pipeline.world.attachments import Place, attached
from pipeline.world.command import run

ASKED = "FLAGRELEASE_KEYLESS"
HINT = (
    "it needs cosign (./bootstrap --readers-tools), the job's permission id-token: write, and to reach Sigstore;"
    " or leave FLAGRELEASE_KEYLESS unset"
)


def is_asked_for() -> bool:
    return os.environ.get(ASKED) == "true"


def sign_keyless(place: Place, key: PublicKey | None) -> None:
    """The image and every statement that is attached to it. Raises CommandError with cosign's last words."""
    image = f"{place.registry.host}/{place.repository}@{place.image.digest}"
    run(["cosign", "sign", "--yes", image], doing="signing keyless", hint=HINT)
    with tempfile.TemporaryDirectory(prefix="flagrelease-keyless-") as folder:
        for one in attached(place):
            statement = one.statement(key)
            if statement is None:
                continue
            path = Path(folder, "predicate.json")
            path.write_text(json.dumps(json.loads(statement)["predicate"]), "utf-8")
            kind = COSIGN_TYPES.get(one.predicate_type, one.predicate_type)
            words = ["cosign", "attest", "--yes", "--type", kind, "--predicate", str(path), image]
            run(words, doing="attesting keyless", hint=HINT)
