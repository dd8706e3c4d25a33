"""The secret with which webhooks are signed, in the form of the Standard Webhooks specification."""

import base64
import binascii

SECRET_PREFIX = "whsec_"
_SECRET_BYTES = range(24, 65)


def signing_key(secret: str) -> bytes:
    """The bytes that a `whsec_…` stands for. Raises `ValueError`."""
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        key = b""
    if not secret.startswith(SECRET_PREFIX) or len(key) not in _SECRET_BYTES:
        raise ValueError(f"must be {SECRET_PREFIX} and 24 to 64 random bytes in base64")
    return key
