"""Courier processes without their start: Flower starts one a message, and most of a short round would be imports.

    python client/warm_courier.py SOCKET

has imported all that Flower's `flwr-clientapp` needs, and forks for each command line that comes over the socket; the
fork goes on as that program would. It runs as a file and imports nothing of ours, because the code that a courier
runs is the one that the server shipped. `LAUNCHER`, put first on the SuperNode's path under the program's name, hands
the command line over, or starts the program itself where nobody takes it.
"""

import json
import os
import signal
import socket
import sys
import traceback
from pathlib import Path

NAME = "flwr-clientapp"
LARGEST = 65536

LAUNCHER = """\
#!{python} -SEs
import json, os, socket, sys
try:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect({socket!r})
        line.sendall(json.dumps(sys.argv[1:]).encode())
except OSError:
    os.execv({program!r}, [{program!r}, *sys.argv[1:]])
"""


def write_launcher(folder: Path, place: Path) -> None:
    """Write the launcher into `folder`; `place` is the socket that it calls."""
    folder.mkdir(parents=True, exist_ok=True)
    program = str(Path(sys.executable).parent / NAME)
    path = folder / NAME
    path.write_text(LAUNCHER.format(python=sys.executable, socket=str(place), program=program))
    path.chmod(0o755)


def serve(place: Path) -> None:
    """Fork a courier for each command line that comes, until a signal ends the process."""
    import httpx
    from flwr.supernode.cli import flwr_clientapp

    httpx.Client(verify=False).close()  # imports what it leaves until a client is made
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # the kernel buries those that have ended
    place.unlink(missing_ok=True)
    os.umask(0o177)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(place))
        os.umask(0o077)
        listener.listen()
        print("couriers are ready", flush=True)
        while True:
            line, _ = listener.accept()
            with line:
                command = line.recv(LARGEST)
            if not os.fork():
                listener.close()
                _be_courier(command, flwr_clientapp)


def _be_courier(command: bytes, program) -> None:  # type: ignore[no-untyped-def]
    code = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        sys.argv = [NAME, *json.loads(command)]
        program()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
