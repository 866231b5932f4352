"""A file in, the secret it holds out."""

from pathlib import Path

from introspan_wire.canary import KEY_BYTES


def secret(file: Path | None) -> str | None:
    """The text of a file without white space around it, None for none. Raises ValueError for one that is unreadable."""
    if file is None:
        return None
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"{file} cannot be read as a secret: {error}") from error


def canary_key(file: Path | None) -> bytes | None:
    """The secret that canaries are signed with, None for none. Raises ValueError for one that is too short."""
    text = secret(file)
    if text is None:
        return None
    key = text.encode()
    if len(key) < KEY_BYTES:
        raise ValueError(f"{file} must hold a secret of at least {KEY_BYTES} bytes, got {len(key)}")
    return key
