"""Every method of redis-py's client, called with arguments that are made from its signature."""

from __future__ import annotations

import inspect
import itertools
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

from redis.asyncio import Redis
from redis.commands.core import AsyncCoreCommands

from resilient_redis.core.catalog import shape_of
from resilient_redis.core.command import Kind, Shape
from resilient_redis.seam.methods import AsyncStandIn, StandIn
from resilient_redis.seam.packed import command_of

# What a parameter of this name is given; the first that the method takes and that is a command.
BY_NAME: dict[str, list[Any]] = {
    "mapping": [{"a": "1"}, {"m": 1.5}],
    "keys": [["k"], "k", 1],
    "names": [["k"]],
    "fields": [["f"], {"f": "v"}],
    "streams": [{"s": "0"}],
    "values": [["m"], (0.0, 0.0, "m"), 1.5],
    "operation": ["AND"],
    "keyname": ["k"],
    "unit": ["m"],
    "where": ["BEFORE"],
    "min": ["-", "0"],
    "max": ["+", "1"],
    "id": ["0-1"],
    "start": [0, "0-0"],
    "min_idle_time": [0],
    "message_ids": [["0-1"]],
    "dest": ["d"],
    "subcommand": ["HELP"],
    "callback": [len],
    "feature": ["pubsub"],
    "value": ["1"],
    "expire_when": [10],
    "unix_time_seconds": [1_900_000_000],
    "when": [1_900_000_000],
    "timestamp": [1_900_000_000],
    "aggregate": ["SUM"],
    "ttl": [1000],
    "fmt": ["u8"],
    "timeout": [1],
    "direction": ["LEFT"],
    "num": [1],
    "numkeys": [1],
    "count": [1],
    "minid": ["0-1"],
    "cursor": [0],
    "bit": [1],
    "args": [["k"]],
    "members": [["m"]],
}
# Where the types of redis-py are no help: arguments that make a command of it.
BY_METHOD: dict[str, list[tuple[tuple[Any, ...], dict[str, Any]]]] = {
    "bitfield": [],  # gives a builder, and sends nothing itself
    "bitfield_ro": [(("k", "u8", 0), {})],
    "geoadd": [(("k", (13.3, 38.1, "m")), {})],
    "geosearch": [(("k",), {"member": "m", "radius": 1, "unit": "m"})],
    "geosearchstore": [(("d", "k"), {"member": "m", "radius": 1, "unit": "m"})],
    "hset": [(("k", "f", "v"), {})],
    "hsetex": [(("k", "f", "v"), {})],
    "hgetex": [(("k", "f"), {})],
    "hexpire": [(("k", 10, "f"), {})],
    "hpexpire": [(("k", 10, "f"), {})],
    "hexpireat": [(("k", 1_900_000_000, "f"), {})],
    "hpexpireat": [(("k", 1_900_000_000_000, "f"), {})],
    "restore": [(("k", 0, b"\x00\x01v\x0b\x00\x9f\x0c\x8e\x9c\x8d\x4d\x1c\x1c"), {})],
    "xtrim": [(("k",), {"maxlen": 10})],
    "xadd": [(("k", {"f": "v"}), {})],
    "xack": [(("k", "g", "0-1"), {})],
    "xackdel": [(("k", "g", "0-1"), {})],
    "xdel": [(("k", "0-1"), {})],
    "xdelex": [(("k", "0-1"), {})],
    "eval": [(("return 1", 0), {})],
    "eval_ro": [(("return 1", 0), {})],
    "evalsha": [(("0" * 40, 0), {})],
    "evalsha_ro": [(("0" * 40, 0), {})],
    "fcall": [(("f", 0), {})],
    "fcall_ro": [(("f", 0), {})],
    "xautoclaim": [(("k", "g", "c", 0), {})],
    "lmpop": [((1, "k"), {"direction": "LEFT"})],
    "blmpop": [((1, 1, "k"), {"direction": "LEFT"})],
    "zmpop": [((1, ["k"]), {"min": True})],
    "bzmpop": [((1, 1, ["k"]), {"min": True})],
    "zrangestore": [(("d", "k", 0, 1), {})],
    "zrandmember": [(("k",), {})],
    "zadd": [(("k", {"m": 1.5}), {})],
    "zunionstore": [(("d", ["a", "b"]), {})],
    "zinterstore": [(("d", ["a", "b"]), {})],
    "zdiffstore": [(("d", ["a", "b"]), {})],
    "zremrangebylex": [(("k", "[a", "[b"), {})],
    "zrangebylex": [(("k", "[a", "[b"), {})],
    "zrevrangebylex": [(("k", "[b", "[a"), {})],
    "zlexcount": [(("k", "[a", "[b"), {})],
    "xgroup_create": [(("k", "g"), {})],
    "xgroup_setid": [(("k", "g", "0-1"), {})],
    "sort": [(("k",), {})],
    "msetnx": [(({"a": 1},), {})],
    "mset": [(({"a": 1},), {})],
}
# The first makes something of the client; the second is what all of them call.
OWN = {"register_script", "execute_command"}


class Sample(NamedTuple):
    """One call, and the command that it sends."""

    method: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    shape: Shape
    sent: int


def methods() -> list[str]:
    """Those of redis-py's command classes; its client's own send nothing."""
    return [
        name
        for name in sorted(dir(AsyncCoreCommands))
        if not name.startswith("_")
        if not name.endswith("_iter")
        if name not in OWN
        if callable(getattr(Redis, name))
    ]


def guesses(name: str) -> Iterator[tuple[tuple[Any, ...], dict[str, Any]]]:
    """What the method may be called with, by its signature: nothing but what it needs."""
    if name in BY_METHOD:
        yield from BY_METHOD[name]
        return
    needed, rest = [], ""
    for parameter in list(inspect.signature(getattr(Redis, name)).parameters.values())[1:]:
        if parameter.kind is parameter.VAR_POSITIONAL:
            rest = parameter.name
        elif parameter.default is parameter.empty and parameter.kind is not parameter.VAR_KEYWORD:
            needed.append(BY_NAME.get(parameter.name, ["k", 1]))
    for args in itertools.islice(itertools.product(*needed), 64):
        for more in ((), ("k",), ("k", "v")) if rest else ((),):
            yield (*args, *more), {}


def sample(name: str, stand_in: StandIn) -> Sample | None:
    """A call that sends a command which the catalog understands, or else any that sends one."""
    best: Sample | None = None
    for args, kwargs in guesses(name):
        sent: list[tuple[Any, ...]] = []

        def take(command: tuple[Any, ...], _: dict[str, Any], sent: Any = sent) -> bytes:
            sent.append(command)
            return b"*0\r\n"

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # some are deprecated, and queued all the same
                stand_in.run(name, args, kwargs, take)
        except Exception:  # noqa: BLE001 - the arguments are guesses, and so is the reply
            pass  # it does not take these arguments, or its callback not this reply
        if not sent:
            continue
        found = Sample(
            name,
            args,
            kwargs,
            shape_of(command_of(sent[0], stand_in.replies.encoder).args),
            len(sent),
        )
        if found.shape.kind is not Kind.REFUSED:
            return found
        best = best or found
    return best


def sweep() -> dict[str, Sample | None]:
    stand_in = AsyncStandIn()
    return {name: sample(name, stand_in) for name in methods()}
