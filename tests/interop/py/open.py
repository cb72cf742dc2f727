"""Opens a sealed payload with cryptography's HPKE, from the format's description alone.

open.py FILE X_WING_SEED_HEX SENDER_KEY_HEX TOPIC: the payload on stdout.
"""

import hashlib
import sys

import cbor2
from cryptography.hazmat.primitives import hpke
from cryptography.hazmat.primitives.asymmetric import mlkem, x25519
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

file, seed, sender, topic = sys.argv[1:]
seed = bytes.fromhex(seed)

# draft-connolly-cfrg-xwing-kem: a seed of 32 bytes becomes the seed of ML-KEM and a key of X25519.
expanded = hashlib.shake_256(seed).digest(96)
private = hpke.MLKEM768X25519PrivateKey(
    mlkem.MLKEM768PrivateKey.from_seed_bytes(expanded[:64]),
    x25519.X25519PrivateKey.from_private_bytes(expanded[64:]),
)
suite = hpke.Suite(
    hpke.KEM.MLKEM768_X25519, hpke.KDF.HKDF_SHA256, hpke.AEAD.CHACHA20_POLY1305
)
info = b"quantraband/sealed/1\0" + bytes.fromhex(sender) + b"\1" + topic.encode()

with open(file, "rb") as f:
    sealed = cbor2.loads(f.read())
assert sealed[1] == 1, "version"
associated = hashlib.sha256(cbor2.dumps(sealed[2], canonical=True)).digest()

content = None
for hint, encapsulated, wrapped in sealed[2]:
    try:
        content = suite.decrypt(encapsulated + wrapped, private, info)
    except Exception:  # not ours
        continue
if content is None:
    sys.exit("sealed to others, or for another purpose")
payload = AESGCM(content).decrypt(bytes(12), sealed[3], associated)
sys.stdout.buffer.write(payload)
