"""What a server did, in the exact order in which it did it: its append-only file, parsed.

Format: RESP arrays of bulk strings, one per effect, in the files that a manifest lists; a base
file (the data set at the last rewrite, usually RDB), then incremental files; lines that start
with `#` are annotations. A crash may leave a torn command, or a MULTI without EXEC, at the end:
the server drops it when it loads, and so do we.
<https://redis.io/docs/latest/operate/oss_and_stack/management/persistence/#append-only-file>
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

DIRECTORY = "appendonlydir"  # the default of `appenddirname`
ONE_FILE = "appendonly.aof"  # and of `appendfilename`: Redis before 7.0 has no directory
TIMESTAMP = b"#TS"  # not the name of any command


class AOFError(ValueError):
    """The file is damaged elsewhere than at its end, or cannot tell the whole history."""


@dataclass(frozen=True, slots=True)
class Effect:
    """One command that changed the data, as the server wrote it down."""

    index: int
    db: int
    args: tuple[bytes, ...]
    offset: int  # bytes from the start of the history: a mark to read from later
    second: int | None = None  # unix time of the last `#TS:` before it (aof-timestamp-enabled)

    @property
    def name(self) -> bytes:
        return self.args[0].upper()


def aof_files(directory: Path) -> list[Path]:
    """The files that the manifest lists: base first, then the incremental ones in order."""
    folder = directory / DIRECTORY
    if not folder.is_dir() and (directory / ONE_FILE).is_file():
        return [directory / ONE_FILE]
    if not folder.is_dir():
        raise AOFError(f"no {DIRECTORY} in {directory}: does the server run with appendonly yes?")
    manifests = sorted(folder.glob("*.manifest"))
    if not manifests:
        raise AOFError(f"no manifest in {folder}")
    base: list[Path] = []
    incremental: list[tuple[int, Path]] = []
    for line in manifests[0].read_text().splitlines():
        words = shlex.split(line)  # names with spaces are quoted
        fields = dict(zip(words[::2], words[1::2], strict=False))
        if fields.get("type") == "b":
            base.append(folder / fields["file"])
        elif fields.get("type") == "i":
            incremental.append((int(fields["seq"]), folder / fields["file"]))
        # type h: history, what a rewrite replaced and has not deleted yet
    return base + [path for _, path in sorted(incremental)]


def read_effects(directory: Path, since: int = 0) -> list[Effect]:
    """Every effect from the mark `since` on (see `position`), transactions laid flat."""
    effects: list[Effect] = []
    db = start = 0
    second: int | None = None
    files = aof_files(directory)
    for path in files:
        data = path.read_bytes()
        if data[:5] == b"REDIS" or data[:6] == b"VALKEY":
            if not _rdb_is_empty(data):
                raise AOFError(
                    f"{path} holds data: what happened before that rewrite cannot be told "
                    "(run the server with --auto-aof-rewrite-percentage 0)"
                )
        else:
            for offset, args in _applied(data, str(path), last=path is files[-1]):
                if args[0] == TIMESTAMP:
                    second = int(args[1])
                elif args[0].upper() == b"SELECT":
                    db = int(args[1])
                elif start + offset >= since:
                    effects.append(Effect(len(effects), db, args, start + offset, second))
        start += len(data)
    return effects


def position(directory: Path) -> int:
    """A mark: what is written from now on has at least this offset."""
    return sum(path.stat().st_size for path in aof_files(directory))


def parse(data: bytes, source: str = "AOF") -> Iterator[tuple[int, int, tuple[bytes, ...]]]:
    """(offset, end, args) of each whole command; stops before a torn one at the end.

    An annotation `#TS:<unix time>` comes as if it were a command of that name.
    """
    at, size = 0, len(data)
    while at < size:
        line_end = data.find(b"\r\n", at)
        if data[at : at + 1] == b"#":
            if line_end < 0:
                return
            name, _, value = data[at:line_end].partition(b":")
            if name == TIMESTAMP:
                yield at, line_end + 2, (name, value)
            at = line_end + 2
            continue
        if data[at : at + 1] != b"*":
            raise AOFError(f"{source}: no command at byte {at}: {data[at : at + 40]!r}")
        if line_end < 0:
            return
        count, cursor = int(data[at + 1 : line_end]), line_end + 2
        args: list[bytes] = []
        for _ in range(count):
            line_end = data.find(b"\r\n", cursor)
            if line_end < 0:
                return
            if data[cursor : cursor + 1] != b"$":
                raise AOFError(f"{source}: no argument at byte {cursor}")
            begin = line_end + 2
            end = begin + int(data[cursor + 1 : line_end])
            if end + 2 > size:
                return
            args.append(data[begin:end])
            cursor = end + 2
        yield at, cursor, tuple(args)
        at = cursor


def _applied(data: bytes, source: str, *, last: bool) -> Iterator[tuple[int, tuple[bytes, ...]]]:
    """Commands with MULTI and EXEC taken away; a transaction without its EXEC did not happen."""
    open_since: int | None = None
    held: list[tuple[int, tuple[bytes, ...]]] = []
    parsed_to = 0
    for offset, end, args in parse(data, source):
        parsed_to = end
        name = args[0].upper()
        if name == b"MULTI":
            open_since, held = offset, []
        elif name == b"EXEC":
            yield from held
            open_since, held = None, []
        elif open_since is not None and name != TIMESTAMP:
            held.append((offset, args))
        else:
            yield offset, args
    torn = data[parsed_to:]
    if not last and (open_since is not None or (torn and not torn.startswith(b"#"))):
        raise AOFError(f"{source} is torn at byte {parsed_to}, and it is not the last file")


def _rdb_is_empty(data: bytes) -> bool:
    """Whether an RDB file holds no keys: a header, auxiliary fields, then the end.

    <https://rdb.fnordig.de/file_format.html>: 0xFA is an auxiliary field (two strings), 0xFF the
    end; anything else (a database, a function) is data. The header is 9 bytes for both servers.
    """
    at = 9
    while at < len(data) and data[at] == 0xFA:
        at = _skip_string(data, _skip_string(data, at + 1))
    return at >= len(data) or data[at] == 0xFF


def _skip_string(data: bytes, at: int) -> int:
    first = data[at]
    form = first >> 6
    if form == 0:  # the length in 6 bits
        return at + 1 + (first & 0x3F)
    if form == 1:  # in 14 bits
        return at + 2 + ((first & 0x3F) << 8 | data[at + 1])
    if form == 3 and (first & 0x3F) < 3:  # an integer of 1, 2 or 4 bytes instead
        return at + 1 + (1 << (first & 0x3F))
    raise AOFError(f"unexpected string form {first:#x} in an RDB header")
