import threading
from pathlib import Path

import pytest

from client.pictures import list_pictures, read_ahead
from protocol.errors import DataError


def make(folder: Path, *names: str) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).touch()
    return folder


def test_pictures_by_name_and_a_line_for_all_else(tmp_path: Path) -> None:
    folder = make(tmp_path, "b.PNG", "a.jpeg", "c.tif", "Thumbs.db", ".hidden.png", "notes.txt")
    (folder / "more").mkdir()
    paths, others = list_pictures(folder)
    assert [path.name for path in paths] == ["a.jpeg", "b.PNG", "c.tif"]
    assert others == [
        f"{folder}/more is a folder: predict it by itself",
        f"{folder}/notes.txt is not one of png, jpg, jpeg, tif, tiff: convert it, or move it away",
    ]


def test_one_file(tmp_path: Path) -> None:
    folder = make(tmp_path, "a.png", "a.txt")
    assert list_pictures(folder / "a.png") == ([folder / "a.png"], [])
    with pytest.raises(DataError, match=r"a\.txt is not one of png"):
        list_pictures(folder / "a.txt")


def test_two_pictures_of_one_name_would_have_one_mask(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jpg and .*a\.png have the same name: rename or move"):
        list_pictures(make(tmp_path, "a.png", "a.jpg"))


def test_nothing_to_predict(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no file or folder .*nowhere: name a picture"):
        list_pictures(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"holds no picture \(png, jpg"):
        list_pictures(make(tmp_path, "notes.txt"))
    (tmp_path / "images").mkdir()
    with pytest.raises(DataError, match=r"holds no picture; did you mean .*/images\?"):
        list_pictures(tmp_path)


def test_results_in_order_and_never_too_many_begun() -> None:
    begun: list[int] = []
    lock = threading.Lock()

    def work(item: int) -> int:
        with lock:
            begun.append(item)
        if item == 3:
            raise DataError("three")
        return item * item

    found = []
    for item, made in read_ahead(work, range(8), many=2):
        assert len(begun) <= item + 3
        found.append("error" if item == 3 and made.exception() else made.result())
    assert found == [0, 1, 4, "error", 16, 25, 36, 49]
