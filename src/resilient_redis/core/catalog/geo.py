"""Places: https://redis.io/docs/latest/commands/?group=geo"""

from __future__ import annotations

from collections.abc import Mapping

from ..command import Kind, Shape, Wire
from .parse import CONDITIONAL, SYNTAX, integer, number, one_of, options
from .row import Args, Refuse, Row, counted_from, first_two, read, write

_UNITS = (b"M", b"KM", b"FT", b"MI")
# geohash.h: GEO_LONG_MAX, GEO_LAT_MAX
_LONGITUDE_MAX = 180.0
_LATITUDE_MAX = 85.05112878

_WITH = (b"WITHCOORD", b"WITHDIST", b"WITHHASH")
_RADIUS_OPTIONS = {
    **dict.fromkeys((*_WITH, b"ASC", b"DESC", b"ANY"), 0),
    **dict.fromkeys((b"COUNT", b"STORE", b"STOREDIST"), 1),
}
_SEARCH_OPTIONS = {
    **dict.fromkeys((b"ASC", b"DESC", b"ANY"), 0),
    **dict.fromkeys((b"COUNT", b"FROMMEMBER"), 1),
    **dict.fromkeys((b"FROMLONLAT", b"BYRADIUS"), 2),
    b"BYBOX": 3,
}


def _check_place(longitude: bytes, latitude: bytes) -> None:
    if abs(number(longitude)) > _LONGITUDE_MAX or abs(number(latitude)) > _LATITUDE_MAX:
        raise Refuse("invalid longitude, latitude pair")


def _check_distance(*distances: bytes, unit: bytes) -> None:
    if any(number(distance) < 0 for distance in distances):
        raise Refuse("a distance cannot be negative")
    one_of(unit, *_UNITS)


def _check_count(found: Mapping[bytes, Args]) -> None:
    for count in found.get(b"COUNT", ()):
        integer(count, 1)
    if b"ANY" in found and b"COUNT" not in found:
        raise Refuse(SYNTAX)


def _geoadd(args: Args, shape: Shape) -> Shape:
    """`GEOADD key [NX | XX] [CH] longitude latitude member …`"""
    at = 2
    while at < len(args) and args[at].upper() in (b"NX", b"XX", b"CH"):
        at += 1
    places = args[at:]
    if not places or len(places) % 3:
        raise Refuse(SYNTAX)
    for longitude, latitude in zip(places[::3], places[1::3], strict=True):
        _check_place(longitude, latitude)
    if any(flag.upper() != b"CH" for flag in args[2:at]):
        raise Refuse(CONDITIONAL)
    return shape


def _geodist(args: Args, shape: Shape) -> Shape:
    if len(args) > 5:
        raise Refuse(SYNTAX)
    for unit in args[4:]:
        one_of(unit, *_UNITS)
    return shape


def _radius_options(args: Args) -> dict[bytes, Args]:
    """The options of GEORADIUS and GEORADIUSBYMEMBER: they follow the unit."""
    start = 5 if b"MEMBER" in args[0].upper() else 6
    return options(args, start, _RADIUS_OPTIONS)


def _radius_target(found: Mapping[bytes, Args]) -> tuple[bytes, ...]:
    if b"STORE" in found and b"STOREDIST" in found:
        raise Refuse(SYNTAX)
    return (*found.get(b"STORE", ()), *found.get(b"STOREDIST", ()))


def _radius_keys(args: Args) -> tuple[bytes, ...]:
    return (*args[1:2], *_radius_target(_radius_options(args)))


def _radius(args: Args, shape: Shape) -> Shape:
    found = _radius_options(args)
    _check_count(found)
    if "MEMBER" in shape.name:
        _check_distance(args[3], unit=args[4])
    else:
        _check_place(args[2], args[3])
        _check_distance(args[4], unit=args[5])
    if not _radius_target(found):
        return shape
    if shape.name.endswith("_RO") or any(word in found for word in _WITH):
        raise Refuse(SYNTAX)
    return shape._replace(kind=Kind.WRITE, reply=Wire.INT, receipt=True, safe_twice=False)


def _check_search(args: Args, start: int, more: tuple[bytes, ...]) -> None:
    found = options(args, start, {**_SEARCH_OPTIONS, **dict.fromkeys(more, 0)})
    _check_count(found)
    if (b"FROMMEMBER" in found) == (b"FROMLONLAT" in found):
        raise Refuse(SYNTAX)
    if (b"BYRADIUS" in found) == (b"BYBOX" in found):
        raise Refuse(SYNTAX)
    if b"FROMLONLAT" in found:
        _check_place(*found[b"FROMLONLAT"])
    *distances, unit = found.get(b"BYRADIUS") or found[b"BYBOX"]
    _check_distance(*distances, unit=unit)


def _geosearch(args: Args, shape: Shape) -> Shape:
    _check_search(args, 2, _WITH)
    return shape


def _geosearchstore(args: Args, shape: Shape) -> Shape:
    _check_search(args, 3, (b"STOREDIST",))
    return shape


ROWS: tuple[Row, ...] = (
    read("GEODIST", -4, Wire.NIL, by_args=_geodist),
    read("GEOHASH", -2, Wire.NILS, by_args=counted_from(2)),
    read("GEOPOS", -2, Wire.NIL_ARRAYS, by_args=counted_from(2)),
    read("GEOSEARCH", -7, Wire.EMPTY_ARRAY, by_args=_geosearch),
    # both have the flag denyoom also where they only read: the flag is the command's
    read("GEORADIUS", -6, Wire.EMPTY_ARRAY, keys=_radius_keys, grows=True, may_write=True,
         by_args=_radius),
    read("GEORADIUSBYMEMBER", -5, Wire.EMPTY_ARRAY, keys=_radius_keys, grows=True, may_write=True,
         by_args=_radius),
    read("GEORADIUS_RO", -6, Wire.EMPTY_ARRAY, by_args=_radius),
    read("GEORADIUSBYMEMBER_RO", -5, Wire.EMPTY_ARRAY, by_args=_radius),
    write("GEOADD", -5, Wire.INT, receipt=True, safe_twice=True, grows=True, by_args=_geoadd),
    # not safe twice: by then later writes may have changed the source
    write("GEOSEARCHSTORE", -8, Wire.INT, receipt=True, keys=first_two, grows=True,
          by_args=_geosearchstore),
)  # fmt: skip
