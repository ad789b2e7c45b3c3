#!/usr/bin/env python3
"""Checks every #include of src/ against tools/layers.txt; `make lint` and CI run it.

    tools/check_layers.py [SOURCE_ROOT]

Prints `file:line: forbidden arrow` for each violation and exits 1; exits 2 where layers.txt itself is wrong (an
unknown room, a cycle). A room is a folder of src/; a quoted include names a header by its path below src/
("room/header.h"), or a header of the own room by its bare name. Needs Python 3 only.
"""
import re
import sys
from pathlib import Path

INCLUDE = re.compile(r'^\s*#\s*(?:include|import)\s*(?:"([^"]+)"|<([^>]+)>)')
SOURCES = {".c", ".h", ".cu", ".cuh", ".cpp", ".inc", ".m"}
PUBLIC = "nanovllm.h"


def fail(message):
    print(f"tools/layers.txt: {message}", file=sys.stderr)
    sys.exit(2)


def read_layers(path):
    """({room: allowed names}, {header: suffixes})"""
    rooms, headers = {}, {}
    for number, line in enumerate(path.read_text().splitlines(), 1):
        line = line.split("#")[0].strip()
        if not line:
            continue
        name, arrow, rest = line.partition("=>") if "=>" in line else line.partition(":")
        if not arrow:
            fail(f"line {number}: neither 'room: rooms' nor 'header => suffixes'")
        table = headers if arrow == "=>" else rooms
        if name.strip() in table:
            fail(f"line {number}: {name.strip()} stands there twice")
        table[name.strip()] = set(rest.split())
    for room, allowed in rooms.items():
        for other in allowed - rooms.keys() - {PUBLIC}:
            fail(f"{room}: no room {other}")
    check_acyclic(rooms)
    return rooms, headers


def check_acyclic(rooms):
    """Dependencies point down only: the rooms can be laid one upon another."""
    left = {room: set(allowed) - {PUBLIC} for room, allowed in rooms.items()}
    while left:
        free = [room for room, allowed in left.items() if not allowed & left.keys()]
        if not free:
            fail(f"a cycle among {', '.join(sorted(left))}")
        for room in free:
            del left[room]


def arrow_of(file, src, header, quoted, rooms):
    """The room (or public header) that an include points at, or None where it is not ours."""
    if Path(header).name == PUBLIC:
        return PUBLIC
    path, beside = header, (file.parent / header).resolve()
    if quoted and beside.is_file() and beside.is_relative_to(src.resolve()):
        path = str(beside.relative_to(src.resolve()))
    first = path.split("/")[0]
    return first if "/" in path and first in rooms else None


def check_file(file, src, rooms, headers):
    """Violations of one file as `line, text`."""
    room = file.relative_to(src).parts[0]
    for number, line in enumerate(file.read_text(errors="replace").splitlines(), 1):
        match = INCLUDE.match(line)
        if not match:
            continue
        header = match.group(1) or match.group(2)
        target = arrow_of(file, src, header, bool(match.group(1)), rooms)
        if target not in (None, room) and target not in rooms[room]:
            allowed = " ".join(sorted(rooms[room])) or "nothing"
            yield number, f'{room} -> {target} ("{header}"); {room} may include {allowed}'
        suffixes = headers.get(Path(header).name)
        if suffixes is not None and file.suffix not in suffixes:
            yield number, f"{room} -> {header}; only {' '.join(sorted(suffixes))} files may include it"


def main(argv):
    root = Path(argv[0]) if argv else Path(__file__).resolve().parent.parent
    rooms, headers = read_layers(root / "tools" / "layers.txt")
    src = root / "src"
    files = sorted(f for f in src.rglob("*") if f.suffix in SOURCES)
    bad = 0
    for file in files:
        room = file.relative_to(src).parts[0]
        if room not in rooms:
            print(f"{file.relative_to(root)}:1: {room} is no room of tools/layers.txt")
            bad += 1
            continue
        for number, text in check_file(file, src, rooms, headers):
            print(f"{file.relative_to(root)}:{number}: {text}")
            bad += 1
    print(f"layers: {len(files)} files, {bad} forbidden arrows", file=sys.stderr)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
