"""The verdict on made-up figures; needs no valgrind."""

from __future__ import annotations

from tests.cost.counting import judge


def test_growth_within_the_tolerance_is_let_pass() -> None:
    assert judge({"get": 1.01}, {"get": 1.0}, 0.02, {"get": 1.05}) == []


def test_growth_beyond_the_tolerance_is_a_fault() -> None:
    assert judge({"get": 1.03}, {"get": 1.0}, 0.02, {"get": 1.05})


def test_the_ceiling_holds_whatever_was_stored() -> None:
    assert judge({"get": 1.06}, {"get": 1.06}, 0.02, {"get": 1.05})
    assert judge({"get": 1.06}, None, 0.02, {"get": 1.05})


def test_getting_cheaper_is_no_fault() -> None:
    assert judge({"get": 0.9}, {"get": 1.0}, 0.02, {"get": 1.05}) == []
