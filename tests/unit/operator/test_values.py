from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator.values import Duration, Quantity, same_amount


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5s", 5),
        ("30s", 30),
        ("1m30s", 90),
        ("1h30m", 5400),
        ("24h", 86400),
        ("5500ms", 5.5),
        ("1.5h", 5400),
    ],
)
def test_a_duration_is_a_number_of_seconds(text: str, seconds: float) -> None:
    assert Duration.parse(text) == seconds


@pytest.mark.parametrize(
    ("duration", "text"), [(Duration(90), "90"), (Duration(5.5), "5.5"), (Duration(86400), "86400")]
)
def test_a_duration_is_printed_in_seconds_without_an_exponent(
    duration: Duration, text: str
) -> None:
    assert str(duration) == text


@pytest.mark.parametrize("text", ["", "30", "s", "-5s", ".5h", "1.h", "30 s", "1d", "5s later"])
def test_what_is_no_duration_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="30s"):
        Duration.parse(text)


@pytest.mark.parametrize(
    ("given", "canonical"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        (".5", "500m"),
        ("1.5", "1500m"),
        ("1024Mi", "1Gi"),
        ("1025Mi", "1025Mi"),
        ("1.5Gi", "1536Mi"),
        ("0.5Ki", "512"),
        ("1.2Ki", "1228800m"),
        ("1000k", "1M"),
        ("0.1m", "1m"),
        ("1.0001", "1001m"),
        ("100u", "1m"),
        ("0.5n", "1m"),
        ("1e3", "1e3"),
        ("1E3", "1e3"),
        ("12e6", "12e6"),
        ("2E", "2E"),
        ("0Mi", "0"),
        ("+1", "1"),
        (2, "2"),
        (2147483648, "2147483648"),
    ],
)
def test_a_quantity_is_canonical(given: str | int, canonical: str) -> None:
    assert Quantity.parse(given) == canonical


@pytest.mark.parametrize(
    ("given", "amount"), [("500m", "0.5"), ("2", "2"), ("1Gi", "1073741824"), ("1e3", "1000")]
)
def test_a_quantity_has_a_value_in_its_resources_unit(given: str, amount: str) -> None:
    assert Quantity.parse(given).value == Decimal(amount)


@pytest.mark.parametrize("text", ["", "1 Gi", "two", "1GB", "1gi", "--1", "1e", "Gi"])
def test_what_is_no_quantity_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(ValueError, match="4Gi"):
        Quantity.parse(text)


@pytest.mark.parametrize("text", ["1e99", "1e99999999", "1e-99999999", "9" * 31 + "E"])
def test_a_quantity_beyond_all_bounds_is_refused_not_computed(text: str) -> None:
    with pytest.raises(ValueError, match="8E"):
        Quantity.parse(text)


NUMBERS = st.from_regex(r"[0-9]{1,6}(\.[0-9]{0,4})?", fullmatch=True)
SUFFIXES = st.sampled_from(["", "m", "k", "M", "G", "Ki", "Mi", "Gi", "Ti", "e3", "E-2", "e0"])


@given(NUMBERS, SUFFIXES)
def test_a_canonical_quantity_is_its_own_canonical_form(number: str, suffix: str) -> None:
    canonical = Quantity.parse(number + suffix)
    assert Quantity.parse(canonical) == canonical


@given(NUMBERS, st.sampled_from(["", "m", "k", "M", "G"]))
def test_a_quantity_is_never_less_than_what_was_given(number: str, suffix: str) -> None:
    factor = Decimal({"": "1", "m": "0.001", "k": "1e3", "M": "1e6", "G": "1e9"}[suffix])
    exact = Decimal(number) * factor
    assert 0 <= Quantity.parse(number + suffix).value - exact < Decimal("0.001")


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("500m", "0.5", True),
        (30, "30", True),
        ("1Ki", 1024, True),
        ("100u", "0.0001", True),
        ("100u", "1m", False),
        ("1", "many", False),
        ("many", "many", False),
        ("1", "1e99999999999999999999", False),
    ],
)
def test_two_forms_of_one_amount_are_the_same(
    one: str | int, other: str | int, *, same: bool
) -> None:
    assert same_amount(one, other) is same
