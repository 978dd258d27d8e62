"""What the coordinator's code reaches at a hospital, tried from behind the very wall that couriers get."""

import os
import socket
import sys
from pathlib import Path

import pytest

from client import flower, refused_calls
from client.hospital import Hospital
from client.supervisor import CONNECTION, TRAINER, Supervisor
from client.wall import Wall, version
from tests.client.behind import python
from tests.client.hospitals import WITHOUT_PRIVACY, hospital_at
from tests.waiting import wait

pytestmark = pytest.mark.usefixtures("own_user")
walled = pytest.mark.skipif(not version(), reason="needs a kernel with Landlock")


@pytest.fixture
def hospital(folder: Path) -> Hospital:
    hospital = hospital_at(folder / "h", folder / "data")
    for place in (hospital.data / "images", hospital.folder / "privacy", hospital.state / "studies" / "a"):
        place.mkdir(parents=True)
        (place / "file").write_text("x")
    for place in (hospital.state / flower.HOME, hospital.state / flower.PROGRAMS, hospital.socket.parent):
        place.mkdir()
    for path in (hospital.ca, hospital.key):
        path.write_text("x")
    return hospital


def behind(wall: Wall | None, code: str) -> str:
    """What Python code prints behind a site's wall."""
    assert wall is not None
    return python(wall, code)


@walled
def test_data_ledger_and_memory_are_not_there_and_site_yaml_is_not_to_be_changed(hospital: Hospital) -> None:
    wall = flower.wall(hospital)
    hidden = [hospital.data / "images", hospital.folder / "privacy", hospital.state / "studies" / "a"]
    for path in (*(place / "file" for place in hidden), hospital.folder / "site.yaml"):
        for mode in ("r", "a"):
            assert "PermissionError" in behind(wall, f"open({str(path)!r}, {mode!r})"), path
    for place in (*hidden, hospital.folder, hospital.state):
        assert "PermissionError" in behind(wall, f"import os; os.listdir({str(place)!r})"), place
        assert "PermissionError" in behind(wall, f"import os; os.rename({str(place)!r}, {str(place) + 'x'!r})"), place
    new = str(hospital.folder / "site.yaml.new")
    assert "PermissionError" in behind(wall, f"open({new!r}, 'w')")


@walled
def test_what_flower_needs_is_there(hospital: Hospital) -> None:
    wall, home = flower.wall(hospital), str(hospital.state / flower.HOME)
    assert behind(wall, f"print(open({str(hospital.ca)!r}).read(), open({str(hospital.key)!r}).read())") == "x x\n"
    code = f"import tempfile; tempfile.tempdir = {home!r}; tempfile.mkdtemp(); print('made')"
    assert behind(wall, code) == "made\n"
    assert behind(wall, "import socket; print(socket.gethostbyname('localhost'))") == "127.0.0.1\n"


@walled
def test_the_trainers_socket_is_asked_and_one_for_couriers_opened(hospital: Hospital) -> None:
    with socket.socket(socket.AF_UNIX) as trainer:
        trainer.bind(str(hospital.socket))
        trainer.listen()
        connect = f"s = socket.socket(socket.AF_UNIX); s.connect({str(hospital.socket)!r})"
        bind = f"t = socket.socket(socket.AF_UNIX); t.bind({str(hospital.socket.with_name('couriers'))!r})"
        assert behind(flower.wall(hospital), f"import socket; {connect}; {bind}; print('both')") == "both\n"


@walled
def test_couriers_and_supernode_stay_behind_it_and_the_trainer_does_not(hospital: Hospital) -> None:
    supervisor = Supervisor(hospital, lambda line: None)
    assert supervisor.courier.wall == supervisor.supernode.wall == flower.wall(hospital)
    assert supervisor.trainer.wall is None
    supervisor.supernode.command = lambda: [
        sys.executable,
        "-S",
        "-c",
        f"open({str(hospital.folder / 'site.yaml')!r})",
    ]
    supervisor.supernode.start()
    assert supervisor.supernode.process is not None
    assert supervisor.supernode.process.wait(20) == 1
    log = supervisor.supernode.log
    wait(lambda: log.is_file() and "PermissionError" in log.read_text())  # another thread writes it


@walled
def test_what_lies_where_programs_must_read_is_told(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(flower.holes(hospital, flower.wall(hospital))) == []
    monkeypatch.setattr(flower, "SYSTEM", (*flower.SYSTEM, str(hospital.data.parent)))
    told = list(flower.holes(hospital, flower.wall(hospital)))
    hidden = [hospital.data, hospital.folder / "site.yaml", hospital.state, hospital.folder / "privacy"]
    assert [words.partition(" lies where Flower's programs have to read")[0] for words in told] == list(
        map(str, hidden)
    )


@walled
def test_a_ledger_and_a_state_that_lie_there_are_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    elsewhere = folder / "there"
    hospital = hospital_at(
        folder / "h",
        folder / "data",
        privacy=WITHOUT_PRIVACY | {"ledger": str(elsewhere / "ledger")},
        state="../there/s",
    )
    monkeypatch.setattr(flower, "SYSTEM", (*flower.SYSTEM, str(elsewhere)))
    state, ledger = flower.holes(hospital, flower.wall(hospital))
    assert "there/s lies where" in state
    assert ledger.startswith(f"{elsewhere / 'ledger'} lies where")


@walled
@pytest.mark.parametrize("leads", ["/run/NetworkManager/resolv.conf", "/run/systemd/resolve/stub-resolv.conf"])
def test_names_of_hosts_are_read_wherever_the_system_keeps_them(hospital: Hospital, leads: str) -> None:
    wall = flower.wall(hospital)
    assert wall is not None
    assert wall.reaches(Path(leads))
    assert not wall.reaches(Path("/run/user/1000/bus"))


@walled
def test_root_is_told_that_no_wall_holds_it(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    (words,) = flower.holes(hospital, flower.wall(hospital))
    assert words.startswith("this is root")


@walled
def test_whoever_starts_programs_for_the_user_is_told(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    place = hospital.folder / "1000"
    monkeypatch.setattr(flower, "SERVANTS", (f"{hospital.folder}/{{user}}", f"{hospital.folder}/nobody"))
    with socket.socket(socket.AF_UNIX) as servant:
        servant.bind(str(place))
        servant.listen()
        code = f"import socket; socket.socket(socket.AF_UNIX).connect({str(place)!r}); print('asked')"
        assert behind(flower.wall(hospital), code) == "asked\n"
        (words,) = flower.holes(hospital, flower.wall(hospital))
    assert words.startswith(f"{place} takes orders from this user")


@walled
def test_a_machine_whose_calls_are_unknown_is_told(hospital: Hospital, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refused_calls, "CALLS", {})
    monkeypatch.setattr(flower, "version", lambda: 2)
    names, short = flower.holes(hospital, flower.wall(hospital))
    assert "learn the names" in names
    assert "cut files of this user's short" in short


@walled
def test_a_program_that_cannot_be_started_leaves_no_file_open(hospital: Hospital) -> None:
    supervisor = Supervisor(hospital, lambda line: None)
    supervisor.supernode.command = lambda: [str(hospital.folder / "nothing")]
    before = len(list(Path("/proc/self/fd").iterdir()))
    with pytest.raises(OSError, match="nothing"):
        supervisor.supernode.start()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


@pytest.mark.parametrize("part", ["", TRAINER, CONNECTION])
def test_a_kernel_without_walls_is_told_where_couriers_run(
    hospital: Hospital, part: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flower, "version", lambda: 0)
    said: list[str] = []
    supervisor = Supervisor(hospital, said.append, part)
    supervisor._warn()
    assert supervisor.courier.wall is None
    assert [line[:38] for line in said] == ["warning: this kernel has no Landlock, "[:38]] * (part != TRAINER)
