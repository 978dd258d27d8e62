"""Of code and settings a short word that a hospital can pin: it changes when they do."""

import functools
import hashlib
import tomllib

from protocol.settings import OVERRIDES, ROOT, Table, dump

CODE = ("client", "protocol", "strategies", "urwkv")
"""The folders whose code a site runs."""

OWN = ("run.", "report.", "tracking.", "train.device", "train.threads", "train.precision", "train.compile", OVERRIDES)
"""Settings, by how they begin, that say where something runs or lies, not what a site's data are used for."""


@functools.cache
def code_version() -> str:
    """The program's version and, after a plus, the first 16 digits of the SHA-256 of the code that a site runs."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    digest = hashlib.sha256()
    for path in sorted(path for folder in CODE for path in (ROOT / folder).rglob("*.py")):
        digest.update(str(path.relative_to(ROOT)).encode() + b"\0" + path.read_bytes() + b"\0")
    return f"{version}+{digest.hexdigest()[:16]}"


def settings_hash(table: Table) -> str:
    """The first 16 digits of the SHA-256 of a study's settings, whatever their order."""
    meant = {key: table[key] for key in sorted(table) if not key.startswith(OWN)}
    return hashlib.sha256(dump(meant).encode()).hexdigest()[:16]
