"""Keys, signatures and the envelope that signed statements travel in. Pure: bytes in, bytes out.

ECDSA on P-256 with SHA-256, as cosign makes and checks it. Signatures are deterministic (RFC 6979), so that the same
statement signed twice is the same document. Envelope: DSSE 1.0, https://github.com/secure-systems-lab/dsse.
"""

from __future__ import annotations

import base64
import json
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from pipeline.canonical import canonical, sha256_bytes
from pipeline.errors import UsageError

STATEMENT_TYPE = "application/vnd.in-toto+json"
MAKE_ONE = (
    "openssl genpkey -algorithm EC -pkeyopt ec_paramgen_curve:P-256 -aes-256-cbc -out signing.key,"
    " then openssl pkey -in signing.key -pubout -out signing.pub"
)


class NotSignedError(ValueError):
    """What was read is not what this key signed."""


@dataclass(frozen=True)
class PublicKey:
    _key: ec.EllipticCurvePublicKey

    @classmethod
    def read(cls, pem: str, where: str) -> PublicKey:
        """Raises UsageError unless it is a P-256 public key in PEM."""
        try:
            key = load_pem_public_key(pem.encode())
        except (ValueError, UnsupportedAlgorithm):
            key = None
        if not isinstance(key, ec.EllipticCurvePublicKey) or not _is_p256(key.curve):
            raise UsageError("this is no P-256 public key in PEM", where=where, hint=MAKE_ONE)
        return cls(key)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of its DER form, in hex."""
        return sha256_bytes(self._der)

    @property
    def hint(self) -> str:
        """How a Sigstore bundle names the key that verifies it."""
        return base64.b64encode(bytes.fromhex(self.fingerprint)).decode()

    def check(self, signature: bytes, data: bytes) -> None:
        """Raises NotSignedError unless its private half signed exactly these bytes."""
        try:
            self._key.verify(signature, data, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature:
            raise NotSignedError("its signature is not of this key, or it was changed") from None

    @property
    def _der(self) -> bytes:
        return self._key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


@dataclass(frozen=True)
class SigningKey:
    _key: ec.EllipticCurvePrivateKey

    @classmethod
    def read(cls, pem: bytes, password: str | None, where: str) -> SigningKey:
        """Raises UsageError unless it is a P-256 private key in PEM that the password opens."""
        try:
            key = load_pem_private_key(pem, password.encode() if password else None)
        except (ValueError, TypeError, UnsupportedAlgorithm):
            key = None  # what the library says may quote the key
        if not isinstance(key, ec.EllipticCurvePrivateKey) or not _is_p256(key.curve):
            raise UsageError(
                "this is no P-256 private key in PEM, or the password does not open it",
                where=where,
                hint=MAKE_ONE,
            )
        return cls(key)

    @property
    def public(self) -> PublicKey:
        return PublicKey(self._key.public_key())

    def sign(self, data: bytes) -> bytes:
        return self._key.sign(data, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))


def sealed_envelope(payload: bytes, key: SigningKey) -> bytes:
    """A statement in its signed envelope."""
    signature = base64.b64encode(key.sign(_signed_bytes(payload))).decode()
    return canonical(
        {
            "payloadType": STATEMENT_TYPE,
            "payload": base64.b64encode(payload).decode(),
            "signatures": [{"sig": signature}],
        }
    )


def opened_envelope(envelope: bytes, key: PublicKey) -> bytes:
    """The statement inside. Raises NotSignedError unless the key signed it."""
    try:
        content = json.loads(envelope)
        payload = base64.b64decode(content["payload"], validate=True)
        signatures = [base64.b64decode(one["sig"], validate=True) for one in content["signatures"]]
        kind = content["payloadType"]
    except (ValueError, KeyError, TypeError):
        raise NotSignedError("it is no signed envelope") from None
    if kind != STATEMENT_TYPE or len(signatures) != 1:
        raise NotSignedError(f"it holds {kind} with {len(signatures)} signatures")
    key.check(signatures[0], _signed_bytes(payload))
    return payload


def _signed_bytes(payload: bytes) -> bytes:
    """DSSE's pre-authentication encoding."""
    return b"DSSEv1 %d %s %d %s" % (
        len(STATEMENT_TYPE),
        STATEMENT_TYPE.encode(),
        len(payload),
        payload,
    )


def _is_p256(curve: ec.EllipticCurve) -> bool:
    return isinstance(curve, ec.SECP256R1)
