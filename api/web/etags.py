"""Entity tags (RFC 9110, 8.8.3): clients ask whether what they have is still current."""

from hashlib import sha256


def etag_of(content: bytes) -> str:
    """A strong tag: different bytes have different tags."""
    return f'"{sha256(content).hexdigest()[:20]}"'


def named_tags(if_none_match: str) -> set[str]:
    """The tags in an `If-None-Match` header; `*` stands for any."""
    return {tag.strip().removeprefix("W/") for tag in if_none_match.split(",")}
