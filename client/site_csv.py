"""site.csv, as people and spreadsheets write it: separated by commas, semicolons or tabs, in UTF-8."""

import csv
import io
import unicodedata
from collections.abc import Mapping
from pathlib import Path

from client.faults import Faults
from protocol.settings import nearest
from protocol.splits import SPLITS

COLUMNS = ("name", "split", "patient", "group")
SEPARATORS = ",;\t"

Rows = dict[str, dict[str, str]]


def one_form(text: str) -> str:
    """Text in Unicode NFC: macOS writes an accent as a character of its own, other systems mostly do not."""
    return unicodedata.normalize("NFC", text)


def read_rows(path: Path, images: Mapping[str, Path], faults: Faults) -> Rows:
    """The rows of site.csv by the names of `images`, with the empty word for what is not given.

    Without the file, or where its header cannot be used, every image has an empty row.
    """
    empty = dict.fromkeys(COLUMNS, "")
    without = dict.fromkeys(images, empty)
    if not path.is_file():
        return without
    try:
        columns, lines, separator = _parse(path.read_bytes().decode("utf-8-sig"))
    except (UnicodeDecodeError, csv.Error) as error:
        faults.say("{} is not a csv file in UTF-8 ({}): save it as 'CSV UTF-8'", path, error)
        return without
    if "name" not in columns:
        faults.say("{} has no column 'name': its first line is name,split,patient,group (name is a must)", path)
        return without
    _find_bad_columns(path, columns, faults)
    # a column that is empty all the way down is one that the user has not filled in
    has_split = any(row.get("split") for _, row in lines)
    rows: Rows = {}
    for line, row in lines:
        name = _name_of(row["name"], images)
        fault = _bad_row(row, name, rows, images, separator, has_split)
        if fault:
            sentence, *parts = fault
            faults.say("{}, line {}: " + sentence, path, line, *parts)
        # where a row has too many cells, they may stand in the wrong columns
        rows.setdefault(name, empty if row[""] else empty | row)
    for name in images:
        if name not in rows:
            faults.say("{} has no row for {}: add one, or move the image away", path, images[name])
            rows[name] = empty
    return rows


def _parse(text: str) -> tuple[list[str], list[tuple[int, dict[str, str]]], str]:
    """The columns, each line that is not empty with its number, and the separator; surplus cells have the key ""."""
    header = text.partition("\n")[0]
    separator = max(SEPARATORS, key=header.count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    columns = [one_form(cell).strip().lower() for cell in next(reader, [])]
    lines = []
    for cells in reader:
        cells = [one_form(cell).strip() for cell in cells]
        if not any(cells):
            continue
        surplus = [cell for place, cell in enumerate(cells) if not "".join(columns[place : place + 1])]
        row = {"name": "", **dict(zip(columns, cells, strict=False)), "": "".join(surplus)}
        if "split" in row:
            row["split"] = row["split"].lower()
        lines.append((reader.line_num, row))
    return columns, lines, separator


def _find_bad_columns(path: Path, columns: list[str], faults: Faults) -> None:
    for place, column in enumerate(columns):
        if column in columns[:place] and column:
            faults.say("{}: two columns {!r}; keep one", path, column)
        elif column and column not in COLUMNS:
            hint = nearest(column, COLUMNS, f"; the columns are {', '.join(COLUMNS)}")
            faults.say("{}: unknown column {!r}{}", path, column, hint)


def _name_of(word: str, images: Mapping[str, Path]) -> str:
    """The name that a row means: a file's name stands for its image, so that nothing follows from that fault."""
    stem = Path(word).stem
    return stem if word not in images and stem in images else word


def _bad_row(
    row: dict[str, str], name: str, rows: Rows, images: Mapping[str, Path], separator: str, has_split: bool
) -> tuple[str, ...]:
    """What is wrong with a line of site.csv and its cure, as a sentence and its parts; empty when all is well."""
    word, split = row["name"], row.get("split", "")
    if row[""]:
        return "{!r} has more cells than columns; put a word with {!r} into quotes", word, separator
    if name != word:
        return "{!r} is a file's name; write the name without its suffix", word
    if name in rows:
        return "a second row for {!r}; keep one", word
    if name not in images:
        return "there is no image named {!r}; remove the row or add the image", word
    if has_split and split not in SPLITS:
        return "split {!r} of {!r} must be train, val or test", split, word
    return ()
