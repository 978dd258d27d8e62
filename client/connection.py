"""The way to the coordinator, step by step: name, port, TLS, clock, key. Each step that fails says why and the cure.

No step changes anything at the coordinator, so it may be taken while the site is connected.
"""

import email.utils
import http.client
import socket
import ssl
import time
import urllib.request

import httpx
from cryptography.hazmat.primitives.asymmetric import ec
from flwr.proto.fleet_pb2 import ActivateNodeRequest
from flwr.supercore.error import ApiErrorCode, FlowerError
from flwr.supernode.fleet_http_client import FleetHttpClient
from flwr.supernode.node_auth_http_interceptor import NodeAuthHttpInterceptor

from client.hospital import FILE, Hospital
from protocol.address import read_address
from protocol.errors import DeploymentError
from protocol.keys import public_key_of, read_private_key

SECONDS = 10.0
"""Seconds that each step may take."""

CLOCK_SECONDS = 30.0
"""Seconds by which the clocks may differ without a word; a site whose clock is 5 minutes late is refused."""

REFUSED_SECONDS = 300.0

NO_HEARTBEAT = 0.0
"""A heartbeat interval that the coordinator refuses after it has looked the key up, so that nothing is changed."""

EXPIRED, WRONG_NAME, WRONG_ADDRESS = 10, 62, 64
"""OpenSSL's verify codes of an expired certificate and of one for other names (X509_V_ERR_*)."""


def check_words(hospital: Hospital) -> ec.EllipticCurvePrivateKey:
    """What the way needs here, before anybody is asked: the coordinator's address, the CA certificate, the key.

    Raises:
        DeploymentError: one of them is missing or wrong.
    """
    if not hospital.coordinator:
        raise DeploymentError(f"{hospital.folder / 'site.yaml'} names no coordinator yet; write HOST:PORT there")
    if not hospital.ca.is_file():
        raise DeploymentError(f"the CA certificate {hospital.ca} is missing; the study's lead has it as ca.crt")
    return read_private_key(hospital.key)


def reach(hospital: Hospital) -> float:
    """Go the whole way to the hospital's coordinator; behind a proxy, which alone knows the way, its last step.

    Returns:
        The coordinator's clock less this one's, in seconds; 0 behind a proxy.

    Raises:
        DeploymentError: the first step that failed, why, and the cure.
    """
    key = check_words(hospital)
    host, port = read_address(hospital.coordinator)
    clock = 0.0
    if not is_proxied(host):
        _resolve(host)
        _connect(host, port)
        clock = _shake_hands(hospital, host, port)
    if abs(clock) > REFUSED_SECONDS:
        raise DeploymentError(
            f"this machine's clock is {abs(clock):.0f} s {'behind' if clock > 0 else 'ahead of'} the coordinator's;"
            " set it by NTP (timedatectl set-ntp true), or the coordinator refuses the key"
        )
    _introduce(hospital, key)
    return clock


def is_proxied(host: str) -> bool:
    """Whether HTTPS_PROXY, and not NO_PROXY, is set for a host."""
    return "https" in urllib.request.getproxies() and not urllib.request.proxy_bypass(host)


def _resolve(host: str) -> None:
    try:
        socket.getaddrinfo(host, None)
    except OSError as error:
        raise DeploymentError(
            f"the name {host} does not resolve ({error.strerror}); check coordinator in site.yaml, and the DNS"
        ) from error


def _connect(host: str, port: int) -> None:
    try:
        socket.create_connection((host, port), SECONDS).close()
    except TimeoutError as error:
        raise DeploymentError(
            f"{host} does not answer on port {port} within {SECONDS:.0f} s; open the firewall for TCP out to it"
        ) from error
    except OSError as error:
        raise DeploymentError(
            f"{host} has nothing on port {port} ({error.strerror}); is the coordinator started, and the port right?"
        ) from error


def _shake_hands(hospital: Hospital, host: str, port: int) -> float:
    """The TLS handshake, and a look at the server's clock."""
    try:
        context = ssl.create_default_context(cafile=str(hospital.ca))
    except (ssl.SSLError, OSError) as error:
        raise DeploymentError(f"{hospital.ca} is no certificate: ask the study's lead for ca.crt") from error
    connection = http.client.HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        connection.request("HEAD", "/health")
        sent = connection.getresponse().getheader("Date")
    except ssl.SSLCertVerificationError as error:
        raise DeploymentError(_told(error, hospital, host)) from error
    except ssl.SSLError as error:
        raise DeploymentError(
            f"{host}:{port} does not speak TLS ({error.reason}): it is another service, or plain HTTP"
        ) from error
    except (OSError, http.client.HTTPException) as error:
        raise DeploymentError(f"{host}:{port} broke the connection off ({error}); is it the coordinator?") from error
    finally:
        connection.close()
    if sent is None:
        raise DeploymentError(f"{host}:{port} does not say what time it is; is it the coordinator?")
    return email.utils.parsedate_to_datetime(sent).timestamp() - time.time()


def _told(error: ssl.SSLCertVerificationError, hospital: Hospital, host: str) -> str:
    if error.verify_code == EXPIRED:
        return f"the certificate of {host} has expired; the study's lead runs: fedurwkv coordinator renew"
    if error.verify_code in (WRONG_NAME, WRONG_ADDRESS):
        return (
            f"the certificate of {host} is for other names ({error.verify_message}); use the name that the study's"
            " lead gave, or have it added to hosts in study.yaml and the certificate renewed"
        )
    return (
        f"the certificate of {host} is not of the study's authority in {hospital.ca} ({error.verify_message});"
        " ask the study's lead for ca.crt, and the network whether something on the way opens TLS"
    )


def fleet_client(hospital: Hospital, key: ec.EllipticCurvePrivateKey) -> FleetHttpClient:
    """A caller of the coordinator's Fleet API, whose calls are signed by the hospital's key; to be closed."""
    signer = NodeAuthHttpInterceptor(key, key.public_key())
    return FleetHttpClient.from_server_address(hospital.coordinator, False, hospital.ca.read_bytes(), [signer])


def _introduce(hospital: Hospital, key: ec.EllipticCurvePrivateKey) -> None:
    """Ask whether the coordinator knows the key."""
    with fleet_client(hospital, key) as client:
        request = ActivateNodeRequest(public_key=public_key_of(key).pem, heartbeat_interval=NO_HEARTBEAT)
        try:
            client.ActivateNode(request)
        except httpx.HTTPStatusError as error:
            said = FlowerError.from_json(error.response.text)
            if said is not None and said.code == ApiErrorCode.FLEET_INVALID_HEARTBEAT_INTERVAL:
                _compare_names(hospital, error.response.json().get("site"))
                return
            reason = (said.public_details or said.message) if said else error.response.text
            raise DeploymentError(f"the coordinator refuses {hospital.key}: {reason}") from error
        except httpx.HTTPError as error:
            raise DeploymentError(f"{hospital.coordinator} broke the connection off ({error})") from error
    raise DeploymentError(f"{hospital.coordinator} took a heartbeat that is none; is it the coordinator?")


def _compare_names(hospital: Hospital, enrolled: str | None) -> None:
    """Whether the hospital bears the name under which its key is enrolled; another is refused in every run."""
    if enrolled is not None and enrolled != hospital.name:
        raise DeploymentError(
            f"the coordinator enrolled this hospital's key as {enrolled!r}, and {hospital.folder / FILE} says name:"
            f" {hospital.name}; write the enrolled name there"
        )
