"""Who signed a Sigstore bundle: verified with sigstore's own library and the trust root that it ships, offline."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass

from kaito_catalog.errors import CatalogError, visible
from kaito_catalog.formats.policy import Signer
from kaito_catalog.hub.signatures import SIGNATURE, UnreadableSignatureError

_ISSUER_OIDS = ("1.3.6.1.4.1.57264.1.8", "1.3.6.1.4.1.57264.1.1")
"""Fulcio's extensions for the OIDC issuer: as a DER text, and as it was first."""


@dataclass(frozen=True)
class Verified:
    """A signature that holds, and whose it is."""

    payload: bytes
    signer: Signer
    is_trusted: bool
    """Whether the signer is one of those that were named."""


class BadSignatureError(CatalogError):
    """The signature does not hold."""


def verify(bundle: bytes, trusted: Sequence[Signer]) -> Verified:
    """Verify a bundle: certificate, transparency log, signature; then look whose it is.

    Args:
        bundle: the content of `model.sig`.
        trusted: who may have signed it.

    Raises:
        BadSignatureError: it does not hold.
        UnreadableSignatureError: it is none, or is signed with a key of its own.
        CatalogError: sigstore is not installed.
    """
    try:
        from sigstore.errors import Error
        from sigstore.models import Bundle, InvalidBundle
        from sigstore.verify import Verifier, policy
    except ImportError as error:
        raise CatalogError(
            "a signature is verified with sigstore, which is not installed",
            hint="pip install 'kaito-catalog[signatures]'",
        ) from error
    # It warns of the offline trust root and of a policy that accepts everybody: whose it is, is looked at below.
    logging.getLogger("sigstore").setLevel(logging.CRITICAL)
    text = bundle.decode("utf-8", "replace")
    if '"publicKey"' in text and '"certificate"' not in text and '"x509CertificateChain"' not in text:
        raise UnreadableSignatureError(
            f"{SIGNATURE} is signed with a key of its own, which says nothing of who holds it: not verified",
            hint="verify it with the publisher's public key: model_signing verify key",
        )
    try:
        read = Bundle.from_json(text)
        verifier = Verifier.production(offline=True)
        _, payload = verifier.verify_dsse(read, policy.UnsafeNoOp())
    except InvalidBundle as error:
        raise UnreadableSignatureError(
            f"{SIGNATURE} is no Sigstore bundle: {visible(str(error))[:200]}"
        ) from error
    except (Error, ValueError, TypeError, KeyError) as error:
        raise BadSignatureError(f"the signature does not hold: {visible(str(error))[:300]}") from error
    signer = _signer(read.signing_certificate)
    return Verified(payload, signer, any(_is(signer, one) for one in trusted))


def _is(found: Signer, trusted: Signer) -> bool:
    return (found.identity, found.issuer) == (trusted.identity, trusted.issuer)


def _signer(certificate: object) -> Signer:
    from cryptography import x509

    assert isinstance(certificate, x509.Certificate)
    names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    found = [
        *names.get_values_for_type(x509.RFC822Name),
        *names.get_values_for_type(x509.UniformResourceIdentifier),
    ]
    issuer = ""
    for extension in certificate.extensions:
        if extension.oid.dotted_string in _ISSUER_OIDS:
            raw = getattr(extension.value, "value", b"")
            der = extension.oid.dotted_string == _ISSUER_OIDS[0]
            issuer = (raw[2:] if der and raw[:1] == b"\x0c" and raw[1:2] < b"\x80" else raw).decode(
                "utf-8", "replace"
            )
            if der:
                break
    if len(found) != 1 or not issuer:
        raise BadSignatureError("the certificate names no signer, or several")
    return Signer(identity=visible(found[0])[:300], issuer=visible(issuer)[:300])
