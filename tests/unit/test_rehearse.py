"""The rehearsal runs, shows itself, and gives the exit code that the verdict calls for."""

from __future__ import annotations

import io
import sys

import pytest
from rich.console import Console
from rich.text import Text

from resilient_redis.cli import aof, app, rehearse
from resilient_redis.cli.aof import Effect
from resilient_redis.cli.display import Plain, Result, Sample, Title, verdict_lines
from resilient_redis.cli.screen import Screen, spark, verdict_panel
from resilient_redis.cli.verdict import Verdict
from tests.support.servers import Rig

pytest_plugins = ["tests.support.fixtures"]

SAMPLE = Sample(1.0, 0.5, "up", "CLOSED", 100, 20, 30, 4, 5, 6, 70, 0.4, 12.0)


def run(*arguments: str) -> int:
    return app.main(["rehearse", "--plain", *arguments])


def test_a_short_outage_passes(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seconds", "4", "--server", rig.flavour, "--tasks", "20", "--rate", "800") == 0
    out = capsys.readouterr().out
    for word in ("kill -9", "restart", "freeze", "thaw", "append-only file", "PASS", "replayed"):
        assert word in out


def test_without_the_guard_callers_see_the_outage(capsys: pytest.CaptureFixture[str]) -> None:
    run("--seconds", "3", "--tasks", "10", "--rate", "400", "--no-guard")
    out = capsys.readouterr().out
    assert " unknown" in out.partition("operations:")[2].splitlines()[0]
    assert "no guard, no promise" in out


def test_a_server_of_ones_own_is_left_clean(rig: Rig, capsys: pytest.CaptureFixture[str]) -> None:
    rig.admin.set("mine", "1")
    assert run("--seconds", "1", "--tasks", "10", "--rate", "300", "--url", rig.url) == 0
    assert "not visible here" in capsys.readouterr().out
    assert rig.admin.keys("*") == ["mine"]


def test_a_simulated_server(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lupa", reason="fakeredis needs Lua: pip install 'fakeredis[lua]'")
    assert run("--seconds", "4", "--server", "fake", "--tasks", "5", "--rate", "50") == 0
    assert "cannot be frozen" in capsys.readouterr().out


def test_a_simulated_server_without_lua(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "lupa", None)
    assert run("--server", "fake") == 2
    assert "pip install 'fakeredis[lua]'" in capsys.readouterr().err


def test_no_server_there(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--url", "redis://127.0.0.1:1/0") == 2
    assert "no server at redis://127.0.0.1:1/0" in capsys.readouterr().err


def test_a_broken_promise_is_exit_code_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The oracle is given a file in which one effect occurs a second time."""

    def doubled(*arguments: object) -> list[Effect]:
        effects = read(*arguments)  # type: ignore[arg-type]
        return effects + [effect for effect in effects if effect.name == b"RPUSH"][:1]

    read = aof.read_effects
    monkeypatch.setattr(rehearse, "read_effects", doubled)
    assert run("--seconds", "1", "--tasks", "10", "--rate", "300") == 1
    out = capsys.readouterr().out
    assert "FAIL" in out
    assert "duplicated                    1" in out


def test_a_verdict_about_nothing_is_exit_code_1(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("--seconds", "0.5", "--tasks", "1", "--rate", "1") == 1
    assert "nothing was tested" in capsys.readouterr().out


def test_plain_lines() -> None:
    out = io.StringIO()
    plain = Plain(out)
    plain.begin(Title("Valkey", 50, 20.0, guarded=True))
    plain.sample(SAMPLE)
    plain.note(1.25, "kill -9")
    head, columns, line, note = out.getvalue().splitlines()
    assert "50 tasks" in head
    assert dict(zip(columns.split()[3:9], line.split()[4:10], strict=True)) == {
        "live": "200",
        "neutral": "40",
        "queued": "60",
        "refused": "8",
        "unknown": "10",
        "errors": "12",
    }
    assert note.split() == ["1.2", "s", "--", "kill", "-9"]


def test_the_screen_shows_all_of_it() -> None:
    console = Console(width=120, height=50, file=io.StringIO(), force_terminal=True)
    screen = Screen(console)
    screen.begin(Title("Valkey 9", 50, 20.0, guarded=True))
    for _ in range(200):
        screen.sample(SAMPLE)
    screen.note(1.25, "kill -9")
    with console.capture() as captured:
        console.print(screen.render())
    text = captured.get()
    screen.close()
    for word in ("server", "CLOSED", "live", "200/s", "p99", "12.00 ms", "kill -9", "Valkey 9"):
        assert word in text
    assert max(map(len, Text.from_ansi(text).plain.splitlines())) == 120


def test_the_verdict_is_the_same_on_both() -> None:
    verdict = Verdict(operations=10, acknowledged=7, lost=3, examples=["lost: x"])
    result = Result(verdict, "a file", ok=False, remarks=("a remark",))
    console = Console(width=120, file=io.StringIO())
    console.print(verdict_panel(result))
    assert isinstance(console.file, io.StringIO)
    for text in (console.file.getvalue(), "\n".join(verdict_lines(result))):
        for word in ("acknowledged", "7", "lost", "3", "FAIL", "a remark", "lost: x"):
            assert word in text


def test_spark() -> None:
    assert spark([0, 0.001, 0.5, 1, 2]) == " ▁▄██"
