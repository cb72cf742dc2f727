"""Verifies a credential, a delegation and an anchor with other people's code alone.

    verify.py ANCHOR CHAIN SUBJECT GROUP

ANCHOR is what `identity issuer init` wrote; CHAIN is what `identity issue` wrote: the node's
credential, then the delegations above it. `cwt` verifies the Ed25519 part of the credential as a
CBOR Web Token in COSE_Sign; `cryptography` verifies both parts of every document over the
Sig_structure of RFC 9052, built here with `cbor2`. Prints what it found as JSON; any disagreement
ends it with an exception.
"""

import hashlib
import io
import json
import sys

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.mldsa import MLDSA65PublicKey
from cwt import COSE, COSEAlgs, COSEKey

ED25519, ML_DSA_65 = -19, -49
CNF, REQUIRED, GROUPS, SCOPE, STATUS = 8, -65537, -65539, -65541, 65535


def thumbprint(pair):
    """SHA-256 of the canonical COSE_KeySet of both keys."""
    return hashlib.sha256(cbor2.dumps(pair, canonical=True)).digest()


def parts(document):
    assert document.tag == 98, "a tagged COSE_Sign"
    protected, unprotected, payload, signatures = document.value
    assert protected == b"" and unprotected == {}
    return payload, signatures


def verify_both(document, pair, aad):
    """Both signatures, in order, by this pair of keys."""
    payload, signatures = parts(document)
    ed25519 = Ed25519PublicKey.from_public_bytes(pair[0][-2])
    ml_dsa = MLDSA65PublicKey.from_public_bytes(pair[1][-1])
    assert len(signatures) == 2, "two signatures"
    for (protected, _, signature), algorithm, key in zip(
        signatures, (ED25519, ML_DSA_65), (ed25519, ml_dsa)
    ):
        header = cbor2.loads(protected)
        assert header == {1: algorithm, 4: thumbprint(pair)}
        signed = cbor2.dumps(["Signature", b"", protected, aad, payload])
        key.verify(signature, signed)
        try:
            key.verify(signature, signed[:-1] + bytes([signed[-1] ^ 1]))
        except InvalidSignature:
            continue
        raise AssertionError("a changed byte went unnoticed")
    return cbor2.loads(payload)


def sequence(data):
    stream, found = io.BytesIO(data), []
    while stream.tell() < len(data):
        start = stream.tell()
        found.append((cbor2.load(stream), data[start : stream.tell()]))
    return found


def verify_with_cwt(encoded, pair, aad):
    """`cwt` knows Ed25519 in COSE_Sign, and takes the first signature it has a key for."""
    key = COSEKey.new(
        {1: 1, 3: COSEAlgs.ED25519, -1: 6, -2: pair[0][-2], 2: thumbprint(pair)}
    )
    payload = COSE.new().decode(encoded, [key], external_aad=aad)
    changed = bytearray(encoded)
    changed[encoded.index(b"node-7")] ^= 1
    try:
        COSE.new().decode(bytes(changed), [key], external_aad=aad)
    except Exception:
        return payload
    raise AssertionError("cwt accepted a changed credential")


def main(anchor_path, chain_path, subject, group):
    with open(anchor_path, "rb") as file:
        anchor = cbor2.loads(file.read())
    issuer = cbor2.loads(parts(anchor)[0])
    pair = issuer[3]
    verify_both(anchor, pair, b"quantraband/trust-anchor/2")
    with open(chain_path, "rb") as file:
        chain = sequence(file.read())
    name = issuer[2]
    for document, _ in reversed(chain[1:]):
        mandate = verify_both(document, pair, b"quantraband/delegation/1")
        assert mandate[1] == name and mandate[2].startswith(name + ".")
        assert mandate[REQUIRED] == [ED25519, ML_DSA_65] and SCOPE in mandate
        name, pair = mandate[2], [mandate[CNF][1], mandate[CNF][-65537]]
    document, encoded = chain[0]
    aad = b"quantraband/credential/2"
    claims = verify_both(document, pair, aad)
    payload = verify_with_cwt(encoded, pair, aad)
    assert payload == parts(document)[0] or cbor2.loads(payload) == claims
    assert claims[1] == name and claims[2] == subject and group in claims[GROUPS]
    assert claims[REQUIRED] == [ED25519, ML_DSA_65]
    assert claims[STATUS]["status_list"]["uri"] == "quantraband:status/" + name
    assert len(claims[CNF][-65537][-1]) == 1952 and len(claims[CNF][-65538]) == 1216
    print(json.dumps({"issuer": name, "subject": subject, "links": len(chain)}))


if __name__ == "__main__":
    main(*sys.argv[1:])
