"""Under which name each node was enrolled: a site's own word for its name counts only where it is that name.

A SuperLink tells its server apps by which public key each node proves who it is, and the study's folder says whose
that key is. A simulation has no keys, and a SuperLink that was started without a study knows no names: there sites
are taken at their word.
"""

import logging
from collections.abc import Iterable
from pathlib import Path

from flwr.proto.node_pb2 import NodeInfo

from protocol.keys import public_key_from_pem
from protocol.settings import Table
from server.refusals import Refusals
from server.study import FILE, Study, read_study

log = logging.getLogger("fedurwkv.server")


class IdentityError(Exception):
    """A node that says another name than the one under which its key was enrolled; the text is the reason."""


class Enrolment:
    """Who is enrolled in a study, and who was refused for its name.

    Args:
        study: the study; read anew at every question, so that an enrolment or a revocation counts at once.
    """

    def __init__(self, study: Study) -> None:
        self._study = study
        self._refusals = Refusals(study.refusals)
        self.refused: list[str] = []

    def __len__(self) -> int:
        return len(self._study.admitted())

    def names(self, nodes: Iterable[NodeInfo]) -> dict[int, str]:
        """The enrolled name of each node, by Flower's id of it; "" where nobody is enrolled by its key."""
        return {node.node_id: self._study.name_of(public_key_from_pem(node.public_key)) for node in nodes}

    def check(self, enrolled: str, said: str) -> None:
        """Whether a node may bear the name that it says; a refusal is in the study's log.

        Raises:
            IdentityError: it may not.
        """
        if enrolled and enrolled == said:
            return
        reason = (
            f"{enrolled} calls itself {said!r}; the hospital writes name: {enrolled} into its site.yaml, as enrolled"
            if enrolled
            else f"a site that calls itself {said!r} has a key that is not enrolled; fedurwkv coordinator enroll"
        )
        self.refused.append(reason)
        self._refusals.note(reason)
        log.warning("refused %s; the run goes on without it", reason)
        raise IdentityError(reason)


def enrolment_of(table: Table) -> Enrolment | None:
    """The enrolment of the study in whose folder a run lies; None where there is none."""
    folder = Path(str(table["run.out"])).parent.parent
    if table["run.engine"] != "deployment":
        return None
    if not (folder / FILE).is_file():
        log.warning("no study is served here (%s is missing): sites are taken at their word", folder / FILE)
        return None
    return Enrolment(read_study(folder))
