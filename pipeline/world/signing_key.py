"""The private half of a release key: from the environment of whoever signs, and nowhere else."""

from __future__ import annotations

import os
from pathlib import Path

from pipeline.errors import UsageError
from pipeline.record import ReleaseKey
from pipeline.signatures import PublicKey, SigningKey

KEY = "FLAGRELEASE_SIGNING_KEY"  # a path, or the PEM itself
PASSWORD = "FLAGRELEASE_SIGNING_PASSWORD"  # noqa: S105 the name of a variable


def signing_key(release_key: ReleaseKey) -> SigningKey:
    """Raises UsageError unless the environment holds the private half of this public key."""
    given = os.environ.get(KEY, "").strip()
    if not given:
        raise UsageError(
            f"the target's releases are signed, and {KEY} is not set",
            where=release_key.path,
            hint=f"set it to the path or the text of the private key, and {PASSWORD} if it has a password",
        )
    key = SigningKey.read(_pem(given), os.environ.get(PASSWORD), f"${KEY}")
    if key.public != PublicKey.read(release_key.pem, release_key.path):
        raise UsageError(
            f"{KEY} holds the private half of another key: {key.public.fingerprint}",
            where=f"{release_key.path} ({release_key.fingerprint})",
            hint="sign with the key whose public half the matrix names, or commit the new public half",
        )
    return key


def _pem(given: str) -> bytes:
    if given.startswith("-----BEGIN"):
        return given.encode()
    try:
        return Path(given).read_bytes()
    except OSError as error:
        raise UsageError(
            f"the signing key cannot be read: {error.strerror}", where=f"${KEY}"
        ) from error
