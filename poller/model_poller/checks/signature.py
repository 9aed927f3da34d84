"""minisign's keys and signatures: Ed25519 over a file, with a comment that is signed too.

The format is minisign's own (https://jedisct1.github.io/minisign, "Signature format"): base64 lines
under comments. A signature of kind ``ED`` is one over the file's BLAKE2b-512, ``Ed`` over the file
itself.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from model_poller.errors import InvalidSettingsError

if TYPE_CHECKING:
    from pathlib import Path

MAX_BYTES = 16 << 10
"""Of a signature file; minisign's own comments end at 8 KiB."""

_PURE, _PREHASHED = b"Ed", b"ED"
_NOT_ENCRYPTED = b"\0\0"
_FILE = re.compile(
    rb"untrusted comment: [^\r\n]*\r?\n([A-Za-z0-9+/=]+)\r?\n"
    rb"trusted comment: ([^\r\n]*)\r?\n([A-Za-z0-9+/=]+)\s*"
)


class SignatureError(Exception):
    """A signature does not fit a file or a key; the message says how."""


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Tells whether a file was signed with the secret key that belongs to it."""

    key_id: bytes
    key: bytes

    @classmethod
    def parse(cls, text: str) -> PublicKey:
        """Read a public key as minisign shows it: the base64 line, with or without its comment.

        Raises:
            InvalidSettingsError
        """
        content = _decoded(text.strip().encode(errors="replace").splitlines()[-1:])
        if len(content) != 42 or content[:2] != _PURE:
            # Not shown: it may be the secret key, given by mistake.
            raise InvalidSettingsError(
                "the manifest's public key is none of minisign; give the second line of its .pub"
                " file"
            )
        return cls(content[2:10], content[10:])

    def verify(self, content: bytes, signature: bytes) -> str:
        """Check a signature file over ``content``; returns its trusted comment.

        Raises:
            SignatureError
        """
        from cryptography.exceptions import InvalidSignature
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

        signed, comment, whole = _parts(signature)
        kind, key_id, own = signed[:2], signed[2:10], signed[10:]
        if kind not in (_PURE, _PREHASHED):
            raise SignatureError("it is of a kind that is not known")
        if key_id != self.key_id:
            raise SignatureError(
                f"it was made with the key {_shown(key_id)}, not with {_shown(self.key_id)}"
            )
        key = Ed25519PublicKey.from_public_bytes(self.key)
        try:
            key.verify(own, _prehashed(content) if kind == _PREHASHED else content)
        except InvalidSignature:
            raise SignatureError("it does not fit the file") from None
        try:
            key.verify(whole, own + comment)
        except InvalidSignature:
            raise SignatureError("its trusted comment was changed") from None
        return comment.decode(errors="replace")


def trusted_comment(signature: bytes) -> str:
    """The trusted comment of a signature file that nobody has verified.

    Raises:
        SignatureError
    """
    return _parts(signature)[1].decode(errors="replace")


@dataclass(frozen=True, slots=True)
class SecretKey:
    """Signs files. Read from what ``minisign -G -W`` writes: a secret key without a password."""

    key_id: bytes
    seed: bytes = field(repr=False)

    @classmethod
    def load(cls, path: Path) -> SecretKey:
        """Read a secret key file.

        Keys under a password are left to minisign itself: a pipeline would keep the password
        beside the key.

        Raises:
            InvalidSettingsError
            OSError
        """
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        content = _decoded(path.read_bytes().strip().splitlines()[-1:])
        if len(content) != 158 or content[:2] != _PURE:
            raise InvalidSettingsError(
                f"{path} is no secret key of minisign; make one with minisign -G -W"
            )
        if content[2:4] != _NOT_ENCRYPTED:
            raise InvalidSettingsError(
                f"the secret key {path} is under a password; make one without, by minisign -G -W,"
                " and keep it as a secret of the pipeline"
            )
        key_id, seed, public = content[54:62], content[62:94], content[94:126]
        if Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw() != public:
            raise InvalidSettingsError(f"the secret key {path} is damaged")
        return cls(key_id, seed)

    @property
    def public(self) -> PublicKey:
        """What tells whether a file was signed with this key."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        own = Ed25519PrivateKey.from_private_bytes(self.seed)
        return PublicKey(self.key_id, own.public_key().public_bytes_raw())

    def sign(self, content: bytes, comment: str) -> bytes:
        """The signature file over ``content`` and a trusted comment, of the kind ``ED``."""
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

        key = Ed25519PrivateKey.from_private_bytes(self.seed)
        own = key.sign(_prehashed(content))
        trusted = comment.encode()
        lines = (
            b"untrusted comment: signature from minisign secret key",
            base64.b64encode(_PREHASHED + self.key_id + own),
            b"trusted comment: " + trusted,
            base64.b64encode(key.sign(own + trusted)),
        )
        return b"\n".join(lines) + b"\n"


def _parts(signature: bytes) -> tuple[bytes, bytes, bytes]:
    """A signature file's own signature with kind and key, its comment, and the one over both."""
    match = _FILE.fullmatch(signature)
    signed, whole = (_decoded([match[1]]), _decoded([match[3]])) if match else (b"", b"")
    if not match or len(signed) != 74 or len(whole) != 64:
        raise SignatureError("it is no signature of minisign")
    return signed, match[2], whole


def _prehashed(content: bytes) -> bytes:
    return hashlib.blake2b(content).digest()


def _shown(key_id: bytes) -> str:
    return f"{int.from_bytes(key_id, 'little'):016X}"


def _decoded(lines: list[bytes]) -> bytes:
    try:
        return base64.b64decode(b"".join(lines), validate=True)
    except binascii.Error:
        return b""
