from pathlib import Path

import pytest
from flwr.proto.node_pb2 import NodeInfo

from protocol.keys import PublicKey, make_key_pair
from server.identity import Enrolment, IdentityError, enrolment_of
from server.study import Study, make_study
from tests.server.clients import settings


@pytest.fixture
def study(tmp_path: Path) -> Study:
    return make_study(tmp_path / "study", ["a"])


def key(study: Study, name: str) -> PublicKey:
    return make_key_pair(study.folder / name, study.folder / f"{name}.pub", name)


def test_a_nodes_name_is_the_one_that_its_key_was_enrolled_under(study: Study) -> None:
    mercy, unknown = key(study, "m"), key(study, "u")
    study.admit("mercy", study.folder / "m.pub")
    nodes = [NodeInfo(node_id=7, public_key=mercy.pem), NodeInfo(node_id=8, public_key=unknown.pem, name="mercy")]
    enrolment = Enrolment(study)
    assert enrolment.names(nodes) == {7: "mercy", 8: ""}
    assert len(enrolment) == 1
    study.revoke("mercy")
    assert enrolment.names(nodes) == {7: "", 8: ""}


def test_another_name_is_refused_and_the_study_writes_it_down(study: Study) -> None:
    enrolment = Enrolment(study)
    enrolment.check("mercy", "mercy")
    assert not study.refusals.exists()
    with pytest.raises(IdentityError, match=r"charity calls itself 'mercy'; the hospital writes name: charity into"):
        enrolment.check("charity", "mercy")
    with pytest.raises(IdentityError, match="'' has a key that is not enrolled"):
        enrolment.check("", "")
    assert len(enrolment.refused) == 2
    assert "refused charity calls itself 'mercy'" in study.refusals.read_text()


def test_a_run_in_a_studys_folder_knows_its_sites(study: Study, caplog: pytest.LogCaptureFixture) -> None:
    table = settings(run_out=str(study.runs / "first"))
    assert enrolment_of(table) is not None
    assert enrolment_of(table | {"run.engine": "local"}) is None
    assert not caplog.records
    assert enrolment_of(table | {"run.out": str(study.folder / "elsewhere" / "first" / "x")}) is None
    assert "sites are taken at their word" in caplog.text
