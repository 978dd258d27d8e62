"""The SuperLink's own process: `flower-superlink` with the guard before its application, and more patience.

python -m server.superlink_process STUDY [flower-superlink's words ...]
"""

import sys
from functools import wraps
from pathlib import Path
from typing import Any

from flwr.superlink import main as superlink
from flwr.superlink.cli.flower_superlink import flower_superlink
from starlette.middleware import Middleware

from server.endings import Endings
from server.guard import Guard
from server.handshakes import tell_handshakes
from server.held_pulls import HeldPulls
from server.patience import be_patient
from server.senders import Senders
from server.study import Study, read_study


def guard_with(study: Study) -> None:
    """Have every application that Flower makes from now on stand behind the guard.

    Flower makes its application itself and offers no place for a middleware of others, so its factory is wrapped.
    """
    make = superlink.create_app

    @wraps(make)
    def guarded(*words: Any, **named: Any) -> Any:
        app = make(*words, **named)
        app.user_middleware.append(Middleware(Senders, study=study))  # the innermost: behind Flower's own
        app.add_middleware(Endings)
        app.add_middleware(HeldPulls)
        app.add_middleware(Guard, study=study)
        return app

    superlink.create_app = guarded


def main() -> None:
    """Serve the study in the folder that the first argument names."""
    study = read_study(Path(sys.argv[1]))
    guard_with(study)
    tell_handshakes(study)
    be_patient()
    sys.argv = ["flower-superlink", *sys.argv[2:]]
    flower_superlink()


if __name__ == "__main__":
    main()
