"""Seeds that depend on what they are for, not on what was drawn before."""

import hashlib


def seed_of(*parts: int | str) -> int:
    """A seed below 2^32 from a study's seed and the names and numbers of its use.

    Stateless, so a resumed or reordered run draws exactly what an undisturbed one would.
    """
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:4])
