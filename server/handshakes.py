"""Why a caller's TLS handshake failed: who finds fault with a certificate says so in its last word, an alert.

The event loops drop such a connection in silence, so the coordinator would see nothing where a hospital has the wrong
CA, calls by another name, or speaks plain HTTP. A caller that hangs up without an alert leaves nothing to tell; from
which address one came is not known at this depth.
"""

import ssl

from server.refusals import Refusals
from server.study import Study

ALERTS = {
    "TLSV1_ALERT_UNKNOWN_CA": "it does not know the authority of server.crt; it needs this study's ca.crt,"
    " or something on its way opens TLS",
    "SSLV3_ALERT_CERTIFICATE_EXPIRED": "to it server.crt has expired; fedurwkv coordinator renew,"
    " or its clock is ahead",
    "SSLV3_ALERT_BAD_CERTIFICATE": "server.crt is for {hosts}, and it calls by another name; add that to hosts in"
    " study.yaml, then fedurwkv coordinator renew; or its clock is behind",
    "HTTP_REQUEST": "it speaks plain HTTP, and this port TLS alone",
}
"""OpenSSL's reasons, and what they mean here."""


def tell_handshakes(study: Study) -> None:
    """Have every failed handshake with a server of this process written into the study's log of refusals."""
    refusals = Refusals(study.refusals)

    class Told(ssl.SSLObject):
        def do_handshake(self) -> None:
            try:
                super().do_handshake()
            except (ssl.SSLWantReadError, ssl.SSLWantWriteError):  # half-way, not failed
                raise
            except ssl.SSLError as error:
                if self.server_side:
                    reason = ALERTS.get(error.reason, f"TLS failed ({error.reason})")
                    refusals.note(f"a caller at the handshake: {reason.format(hosts=', '.join(study.hosts))}")
                raise

    ssl.SSLContext.sslobject_class = Told
