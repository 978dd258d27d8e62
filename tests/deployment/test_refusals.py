"""Who is refused, and what both ends say about it, between the real processes."""

import contextlib
import datetime
import http.client
import json
import shutil
import ssl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from flwr.proto.fleet_pb2 import PushMessagesRequest
from flwr.proto.message_pb2 import Message as FlowerMessage
from flwr.proto.message_pb2 import Metadata
from flwr.proto.node_pb2 import Node
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from protocol.keys import read_private_key
from protocol.settings import ROOT
from server.certificates import SLACK, days_left, make_authority, make_server_certificate
from server.guard import LARGEST_BODY
from server.senders import REASON
from server.study import read_study
from server.superlink import Control
from tests.client.hospitals import short_folder
from tests.client.phantoms import SMALL, sets_of, small, small_sites
from tests.deployment.federation import Deployment, fedurwkv, left_over, running
from tests.waiting import wait

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


@contextmanager
def joined(listen: str = "127.0.0.1", lasts: float | None = None) -> Iterator[tuple[Deployment, list[Path]]]:
    """A study that is being served, and the data of three sites; nothing is left over at the end.

    Args:
        listen: the address on which it is served.
        lasts: seconds from now on in which its certificate is valid; None: as long as any.
    """
    with short_folder() as folder:
        deployment = Deployment(folder)
        sites = small_sites(folder, small(data_sites=3))
        deployment.init(listen=listen)
        if lasts is not None:
            expire_after(deployment, lasts)
        with deployment.coordinator():
            yield deployment, sites
        assert left_over(folder) == []


def test_keys_and_messages_that_are_refused() -> None:
    with joined() as (deployment, sites):
        log = deployment.folder / "coordinator.log"

        unknown = deployment.hospital(sites[0], enroll=False)
        with deployment.site(unknown) as site:
            site.wait_for("is not enrolled; the study's lead runs: fedurwkv coordinator enroll")
        assert "refused the unknown key SHA256:" in log.read_text()
        said = fedurwkv("site", "check", unknown, code=1)
        assert "is not enrolled" in said

        revoked = deployment.hospital(sites[1])
        with deployment.sites([revoked]) as (site,):
            fedurwkv("coordinator", "revoke", deployment.study, sites[1].name)
            site.wait_for("was revoked; the hospital makes a new key and asks for its enrolment")
        assert f"refused {sites[1].name}, whose key SHA256:" in log.read_text()

        context = ssl.create_default_context(cafile=str(deployment.study / "ca.crt"))
        connection = http.client.HTTPSConnection("127.0.0.1", deployment.port, context=context, timeout=30)
        connection.putrequest("POST", "/v1/fleet/push-object")
        connection.putheader("Content-Length", str(LARGEST_BODY + 1))
        connection.endheaders()
        answer = connection.getresponse()
        assert (answer.status, b"a message of 67,108,865 bytes" in answer.read()) == (413, True)
        connection.close()
        assert "a message of 67,108,865 bytes" in (deployment.study / "refused.log").read_text()


def test_callers_that_cannot_join_over_tls_are_told_at_both_ends() -> None:
    with joined() as (deployment, sites):
        hospital = deployment.hospital(sites[0], enroll=False)
        make_authority(hospital / "ca.crt", deployment.folder / "other.key", "other")
        with deployment.site(hospital) as site:
            site.wait_for("is not of the study's authority in")
        told = "refused a caller at the handshake: it does not know the authority of server.crt"
        coordinator_tells(deployment, told)
        plain = http.client.HTTPConnection("127.0.0.1", deployment.port, timeout=30)
        with contextlib.suppress(OSError, http.client.HTTPException):
            plain.request("GET", "/health")
            plain.getresponse()
        plain.close()
        told = "refused a caller at the handshake: it speaks plain HTTP"
        coordinator_tells(deployment, told)
        assert told in fedurwkv("coordinator", "status", deployment.study)


def site_tells(deployment: Deployment, hospital: Path, reason: str) -> None:
    """The reason is said by a running site, and by its doctor."""
    with deployment.site(hospital) as site:
        site.wait_for(reason)
    assert reason in fedurwkv("site", "check", hospital, code=1)


def coordinator_tells(deployment: Deployment, told: str) -> None:
    log = deployment.folder / "coordinator.log"
    wait(lambda: told in log.read_text(), 30, log.read_text)


def expire_after(deployment: Deployment, seconds: float) -> None:
    """Give the study's server a certificate that is valid for so long from now on."""
    study = read_study(deployment.study)
    pair = (study.ca, study.folder / "ca.key")
    start = datetime.datetime.now(datetime.UTC) - SLACK
    days = (SLACK.total_seconds() + seconds) / 86400
    make_server_certificate(study.certificate, study.certificate_key, pair, study.hosts, start, days)


def test_a_site_that_calls_by_another_name_than_the_certificates_is_told_at_both_ends() -> None:
    with joined(listen="0.0.0.0") as (deployment, sites):
        hospital = deployment.hospital(sites[0], host="127.0.0.2")
        reason = "the certificate of 127.0.0.2 is for other names"
        site_tells(deployment, hospital, reason)
        told = "refused a caller at the handshake: server.crt is for 127.0.0.1, and it calls by another name"
        coordinator_tells(deployment, told)
        assert told in fedurwkv("coordinator", "status", deployment.study)


def test_a_certificate_that_expires_while_it_is_served_is_told_at_both_ends() -> None:
    with joined(lasts=90) as (deployment, sites):
        hospital = deployment.hospital(sites[0])
        while (left := days_left(read_study(deployment.study).certificate)) > 0:
            time.sleep(86400 * left)
        reason = "the certificate of 127.0.0.1 has expired; the study's lead runs: fedurwkv coordinator renew"
        site_tells(deployment, hospital, reason)
        told = "refused a caller at the handshake: to it server.crt has expired; fedurwkv coordinator renew"
        coordinator_tells(deployment, told)


def test_a_site_with_another_version_of_the_code_is_named_and_the_run_does_not_begin() -> None:
    with joined() as (deployment, sites):
        other = deployment.folder / "other-code"
        ignored = shutil.ignore_patterns(".git", ".venv", "__pycache__", "runs", "tests", "docs")
        shutil.copytree(ROOT, other, ignore=ignored)
        with (other / "urwkv" / "losses.py").open("a") as file:
            file.write("\n# another version\n")
        hospitals = [deployment.hospital(site) for site in sites[:2]]
        one = running(deployment.folder / "other.log", "site", "start", hospitals[1], root=other)
        with deployment.sites(hospitals[:1]), one as odd:
            odd.wait_for("connected: ")
            said = fedurwkv("coordinator", "run", deployment.study, *sets_of(SMALL), code=1)
            reason = f"{sites[1].name} runs another version of the code than the coordinator"
            assert "1 of 2 sites joined" in said
            assert reason in said
            assert reason in odd.log.read_text()


def test_a_site_that_takes_anothers_name_is_refused_and_the_run_goes_on_without_it() -> None:
    with joined() as (deployment, sites):
        hospitals = [deployment.hospital(site) for site in sites]
        honest, stolen, thief = (site.name for site in sites)
        path = hospitals[2] / "site.yaml"
        path.write_text(path.read_text().replace(f"name: {thief}", f"name: {stolen}"))
        said = fedurwkv("site", "check", hospitals[2], "--set", "data.size=32", "--set", "train.batch=2", code=1)
        assert f"enrolled this hospital's key as '{thief}', and" in said
        with deployment.sites(hospitals) as running_sites:
            with pytest.raises(httpx.HTTPStatusError) as refused:
                forge_a_reply(deployment, hospitals[2], thief, stolen)
            assert refused.value.response.status_code == 403
            assert REASON in refused.value.response.text
            said = fedurwkv("coordinator", "run", deployment.study, *sets_of(SMALL))
        reason = f"refused {thief} calls itself '{stolen}'; the hospital writes name: {thief} into its site.yaml"
        assert reason in said
        assert reason.removeprefix("refused ") in (deployment.folder / "coordinator.log").read_text()
        assert f"this hospital's key is enrolled as '{thief}', and" in running_sites[2].log.read_text()
        status = fedurwkv("coordinator", "status", deployment.study)
        assert f"refused {thief}: {REASON}" in status
        assert reason in status
        (run,) = (deployment.study / "runs").iterdir()
        result = json.loads((run / "result.json").read_text())
        assert [site["name"] for site in result["sites"]] == [honest, stolen]


def forge_a_reply(deployment: Deployment, hospital: Path, thief: str, victim: str) -> None:
    """Push a reply as the node of `victim`, in a call that is signed by the key of `thief`."""
    study = read_study(deployment.study)
    with Control(study.local_address, study.ca) as control:
        nodes = {node.name: node.id for node in control.nodes()}
    key = read_private_key(hospital / "site.key")
    signer = NodeAuthHttpInterceptor(key, key.public_key())
    reply = FlowerMessage(metadata=Metadata(src_node_id=nodes[victim]))
    request = PushMessagesRequest(node=Node(node_id=nodes[thief]), messages_list=[reply])
    with FleetHttpClient.from_server_address(study.local_address, False, study.ca.read_bytes(), [signer]) as client:
        client.PushMessages(request)


def test_an_expired_certificate_is_not_even_served(tmp_path: Path) -> None:
    deployment = Deployment(tmp_path)
    deployment.init()
    expire_after(deployment, -1)
    said = fedurwkv("coordinator", "start", deployment.study, code=1)
    assert "server.crt expired" in said
    assert "fedurwkv coordinator renew" in said
