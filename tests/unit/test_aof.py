"""The parser of the server's append-only file, on made-up files and on those of real servers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import redis

from resilient_redis.cli.aof import AOFError, Effect, parse, position, read_effects
from tests.support.servers import Rig, own_rig

pytest_plugins = ["tests.support.fixtures"]


def _resp(*commands: str) -> bytes:
    data = b""
    for command in commands:
        if command.startswith("#"):
            data += command.encode() + b"\r\n"
            continue
        words = command.split()
        data += b"*%d\r\n" % len(words)
        data += b"".join(b"$%d\r\n%s\r\n" % (len(word), word.encode()) for word in words)
    return data


def _write_aof(directory: Path, *files: bytes, base: bytes = b"") -> None:
    folder = directory / "appendonlydir"
    folder.mkdir()
    lines = []
    if base:
        (folder / "a.base.rdb").write_bytes(base)
        lines.append("file a.base.rdb seq 1 type b")
    for number, data in enumerate(files, 1):
        (folder / f"a.{number}.incr.aof").write_bytes(data)
        lines.append(f"file a.{number}.incr.aof seq {number} type i startoffset 0")
    (folder / "a.manifest").write_text("\n".join(lines) + "\n")


def _words(effects: Sequence[Effect]) -> list[tuple[int, str]]:
    return [(effect.db, b" ".join(effect.args).decode()) for effect in effects]


def test_aof_databases_transactions_annotations_and_several_files(tmp_path: Path) -> None:
    first = _resp("SELECT 0", "SET a 1", "#TS:1700000000", "MULTI", "SET b 1", "SET c 1", "EXEC")
    second = _resp("SELECT 3", "SET d 1")
    _write_aof(tmp_path, first, second)
    effects = read_effects(tmp_path)
    assert _words(effects) == [(0, "SET a 1"), (0, "SET b 1"), (0, "SET c 1"), (3, "SET d 1")]
    assert [effect.index for effect in effects] == [0, 1, 2, 3]
    assert [effect.second for effect in effects] == [None, *[1_700_000_000] * 3]
    assert position(tmp_path) == len(first) + len(second)


def test_aof_in_one_file_as_before_redis_7(tmp_path: Path) -> None:
    (tmp_path / "appendonly.aof").write_bytes(_resp("SELECT 1", "SET a 1"))
    assert [(e.db, e.args) for e in read_effects(tmp_path)] == [(1, (b"SET", b"a", b"1"))]
    assert read_effects(tmp_path, position(tmp_path)) == []


def test_aof_torn_at_every_byte_gives_the_whole_commands(tmp_path: Path) -> None:
    data = _resp("SELECT 0", "SET a 1", "MULTI", "SET b 1", "EXEC", "#TS:17", "SET c 1")
    ends = [end for _, end, _ in parse(data)]
    _write_aof(tmp_path, data)
    for cut in range(len(data) + 1):
        (tmp_path / "appendonlydir" / "a.1.incr.aof").write_bytes(data[:cut])
        whole = sum(end <= cut for end in ends)
        count = {0: 0, 1: 0, 2: 1, 3: 1, 4: 1, 5: 2, 6: 2, 7: 3}[whole]
        assert len(read_effects(tmp_path)) == count, cut


def test_aof_damage_is_an_error(tmp_path: Path) -> None:
    _write_aof(tmp_path, _resp("SET a 1")[:-3], _resp("SET b 1"))
    with pytest.raises(AOFError, match="torn"):
        read_effects(tmp_path)
    (tmp_path / "appendonlydir" / "a.1.incr.aof").write_bytes(b"garbage\r\n")
    with pytest.raises(AOFError, match="no command at byte 0"):
        read_effects(tmp_path)


def test_aof_base_with_data_is_an_error(tmp_path: Path) -> None:
    _write_aof(tmp_path, base=b"REDIS0012\xfa\x01a\x01b\xfe\x00")
    with pytest.raises(AOFError, match="holds data"):
        read_effects(tmp_path)


def test_aof_of_a_real_server(rig: Rig) -> None:
    with redis.Redis(port=rig.port) as client, redis.Redis(port=rig.port, db=2) as other:
        client.set("a", "1", px=60_000)
        client.delete("nothing")
        pipe = client.pipeline(transaction=True)
        pipe.rpush("l", "x")
        pipe.xadd("s", {"id": "y"})
        pipe.execute()
        other.set("b", "2")
        client.eval("redis.call('set', KEYS[1], 'z')", 1, "c")
    names = [(effect.db, effect.name) for effect in rig.effects()]
    expected = [(0, b"SET"), (0, b"RPUSH"), (0, b"XADD"), (2, b"SET"), (0, b"SET")]
    assert names == expected
    rig.restart()
    assert [(effect.db, effect.name) for effect in rig.effects()] == expected
    assert b"PXAT" in rig.effects()[0].args


def test_a_rewrite_would_hide_the_history() -> None:
    with own_rig("valkey") as own, redis.Redis(port=own.port) as client:
        client.set("a", "1")
        client.execute_command("BGREWRITEAOF")
        while int(own.admin.info("persistence")["aof_rewrite_in_progress"]) or int(
            own.admin.info("persistence")["aof_rewrite_scheduled"]
        ):
            pass
        with pytest.raises(AOFError, match="holds data"):
            own.effects()
