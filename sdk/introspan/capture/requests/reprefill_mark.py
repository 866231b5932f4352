"""Requests that this server sends itself again in, a mark that no client can make out.

The API process makes the mark and the workers check it. Their common secret is that of Python's multiprocessing, drawn
when the first process starts and handed to each process that it starts, so that nothing has to be configured and
nothing is in the environment. A worker that was started in another way knows another one: it believes no mark, and
measures nothing of requests that carry one.
"""

import hashlib
import hmac
from multiprocessing import current_process

from introspan.observation import Again


def shared_key() -> bytes:
    """What this process and those that it was started by, or starts, know alone."""
    return hashlib.blake2b(current_process().authkey, person=b"reprefill", digest_size=32).digest()


def token(key: bytes, number: str, again: Again) -> str:
    """Proof that the holder of the key sent the request of this number again.

    (HMAC-SHA256, RFC 2104)
    """
    return hmac.new(key, f"{number}:{again.position}:{again.not_sent}".encode(), hashlib.sha256).hexdigest()


def is_genuine(key: bytes, number: str, again: Again, given: str) -> bool:
    """Whether the token was made with the key, for this request."""
    return hmac.compare_digest(given.encode(), token(key, number, again).encode())
