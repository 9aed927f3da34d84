"""What clients of one version notice of the next."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferencemodel_operator import interface
from inferencemodel_operator.interface import Difference, differences, message
from model_poller.status import Interface, SignatureSpec, TensorSpec

if TYPE_CHECKING:
    from collections.abc import Mapping

PREDICT = "tensorflow/serving/predict"
IMAGES = TensorSpec(dtype="float32", shape=(-1, 28, 28, 1))
SCORES = TensorSpec(dtype="float32", shape=(-1, 10))
MASK = TensorSpec(dtype="int32", shape=(-1,))
TEXTS = TensorSpec(dtype="string", shape=(-1,))


def signature(
    inputs: Mapping[str, TensorSpec] | None = None,
    outputs: Mapping[str, TensorSpec] | None = None,
    method: str = PREDICT,
) -> SignatureSpec:
    return SignatureSpec(
        method=method,
        inputs=dict(inputs or {"images": IMAGES}),
        outputs=dict(outputs or {"scores": SCORES}),
    )


def offering(**signatures: SignatureSpec) -> Interface:
    return Interface(signatures=signatures)


def default(
    inputs: Mapping[str, TensorSpec] | None = None,
    outputs: Mapping[str, TensorSpec] | None = None,
    method: str = PREDICT,
) -> Interface:
    return offering(serving_default=signature(inputs, outputs, method))


def found(before: Interface, after: Interface) -> tuple[list[str], list[str]]:
    """Those that break clients, and the others, without the name of the signature before them."""
    seen = differences(before, after)
    texts = [each.text.removeprefix('signature "serving_default": ') for each in seen]
    breaking = [text for text, each in zip(texts, seen, strict=True) if each.breaking]
    return breaking, [text for text, each in zip(texts, seen, strict=True) if not each.breaking]


def of(dtype: str, *shape: int) -> TensorSpec:
    return TensorSpec(dtype=dtype, shape=shape)


ANY_RANK = TensorSpec(dtype="float32", shape=None)


@pytest.mark.parametrize(
    ("before", "after", "breaking"),
    [
        pytest.param(
            default(),
            offering(),
            ["no signature at all: no request is answered"],
            id="no-signature",
        ),
        pytest.param(
            default(),
            offering(predict=signature()),
            ['signature "serving_default" is gone: requests that name none are refused'],
            id="no-default",
        ),
        pytest.param(
            offering(serving_default=signature(), top=signature()),
            default(),
            ['signature "top" is gone'],
            id="signature-gone",
        ),
        pytest.param(
            default(),
            default(method="tensorflow/serving/classify"),
            [
                'its method was "tensorflow/serving/predict" and is "tensorflow/serving/classify"',
            ],
            id="method",
        ),
        pytest.param(
            default(),
            default({"image": IMAGES}),
            ['input "images" is called "image" now'],
            id="input-renamed",
        ),
        pytest.param(
            default({"a": IMAGES, "b": IMAGES}),
            default({"c": IMAGES, "d": IMAGES}),
            [
                'input "a" is gone',
                'input "b" is gone',
                'needs a new input "c", float32[-1, 28, 28, 1]',
                'needs a new input "d", float32[-1, 28, 28, 1]',
            ],
            id="which-was-renamed-to-which-is-not-guessed",
        ),
        pytest.param(
            default({"images": IMAGES, "mask": MASK}),
            default(),
            ['input "mask" is gone'],
            id="input-gone",
        ),
        pytest.param(
            default({"images": IMAGES, "mask": TensorSpec(dtype="int32", optional=True)}),
            default(),
            ['input "mask" is gone'],
            id="optional-input-gone",
        ),
        pytest.param(
            default(),
            default({"images": IMAGES, "mask": MASK}),
            ['needs a new input "mask", int32[-1]'],
            id="input-new",
        ),
        pytest.param(
            default({"images": msgspec.structs.replace(IMAGES, optional=True)}),
            default(),
            ['input "images" is required now'],
            id="input-required",
        ),
        pytest.param(
            default(),
            default({"images": of("uint8", -1, 28, 28, 1)}),
            ['input "images" was float32[-1, 28, 28, 1] and is uint8[-1, 28, 28, 1]'],
            id="input-dtype",
        ),
        pytest.param(
            default(),
            default({"images": of("float32", -1, 784)}),
            ['input "images" was float32[-1, 28, 28, 1] and is float32[-1, 784]'],
            id="input-rank",
        ),
        pytest.param(
            default({"images": ANY_RANK}),
            default(),
            ['input "images" was float32 of any rank and is float32[-1, 28, 28, 1]'],
            id="input-any-rank-to-one",
        ),
        pytest.param(
            default(),
            default({"images": of("float32", -1, 32, 32, 1)}),
            ['input "images" was float32[-1, 28, 28, 1] and is float32[-1, 32, 32, 1]'],
            id="input-size",
        ),
        pytest.param(
            default(),
            default({"images": of("float32", 8, 28, 28, 1)}),
            ['input "images" was float32[-1, 28, 28, 1] and is float32[8, 28, 28, 1]'],
            id="input-dimension-closes",
        ),
        pytest.param(
            default(),
            default(outputs={"probabilities": SCORES}),
            ['output "scores" is called "probabilities" now'],
            id="output-renamed",
        ),
        pytest.param(
            default(outputs={"labels": TEXTS}),
            default(outputs={"labels_bytes": TEXTS}),
            ['output "labels" is called "labels_bytes" now: REST answers in base64 now'],
            id="output-to-base64",
        ),
        pytest.param(
            default(outputs={"labels_bytes": TEXTS}),
            default(outputs={"labels": TEXTS}),
            ['output "labels_bytes" is called "labels" now: REST answers no more in base64'],
            id="output-from-base64",
        ),
        pytest.param(
            default(outputs={"scores": SCORES}),
            default(outputs={"scores_bytes": SCORES}),
            ['output "scores" is called "scores_bytes" now'],
            id="numbers-are-never-base64",
        ),
        pytest.param(
            default(),
            default(outputs={"scores": SCORES, "classes": TEXTS}),
            ['output "classes", string[-1] is new: REST answers with names where it had one value'],
            id="second-output",
        ),
        pytest.param(
            default(outputs={"scores": SCORES, "classes": TEXTS}),
            default(),
            [
                'output "classes" is gone',
                "one output is left: REST answers with one value where it had names",
            ],
            id="output-gone",
        ),
        pytest.param(
            default(),
            default(outputs={"scores": of("float64", -1, 10)}),
            ['output "scores" was float32[-1, 10] and is float64[-1, 10]'],
            id="output-dtype",
        ),
        pytest.param(
            default(),
            default(outputs={"scores": of("float32", -1, 1, 10)}),
            ['output "scores" was float32[-1, 10] and is float32[-1, 1, 10]'],
            id="output-rank",
        ),
        pytest.param(
            default(),
            default(outputs={"scores": of("float32", -1, 11)}),
            ['output "scores" was float32[-1, 10] and is float32[-1, 11]'],
            id="output-size",
        ),
    ],
)
def test_what_clients_notice_is_breaking_and_told(
    before: Interface, after: Interface, breaking: list[str]
) -> None:
    told, harmless = found(before, after)
    assert told == breaking
    assert all(text.endswith("is new") for text in harmless)
    assert interface.breaking(differences(before, after))


@pytest.mark.parametrize(
    ("before", "after", "harmless"),
    [
        pytest.param(
            default(),
            offering(serving_default=signature(), top=signature()),
            ['signature "top" is new'],
            id="signature-new",
        ),
        pytest.param(
            offering(),
            default(),
            ['signature "serving_default" is new'],
            id="first-signature",
        ),
        pytest.param(
            default(),
            default({"images": IMAGES, "mask": TensorSpec(dtype="int32", optional=True)}),
            ['takes a new optional input "mask", int32 of any rank'],
            id="optional-input-new",
        ),
        pytest.param(
            default(),
            default({"images": msgspec.structs.replace(IMAGES, optional=True)}),
            ['input "images" is optional now'],
            id="input-optional",
        ),
        pytest.param(
            default(),
            default({"images": of("float32", -1, -1, -1, 1)}),
            ['input "images" was float32[-1, 28, 28, 1] and is float32[-1, -1, -1, 1]'],
            id="input-dimension-opens",
        ),
        pytest.param(
            default(),
            default({"images": ANY_RANK}),
            ['input "images" was float32[-1, 28, 28, 1] and is float32 of any rank'],
            id="input-any-rank",
        ),
        pytest.param(
            default(),
            default(outputs={"scores": of("float32", -1, -1)}),
            ['output "scores" was float32[-1, 10] and is float32[-1, -1]'],
            id="output-says-less",
        ),
        pytest.param(
            default(outputs={"scores": ANY_RANK}),
            default(),
            ['output "scores" was float32 of any rank and is float32[-1, 10]'],
            id="output-says-more",
        ),
        pytest.param(
            default(outputs={"scores": SCORES, "classes": TEXTS}),
            default(outputs={"scores": SCORES, "classes": TEXTS, "ids": MASK}),
            ['output "ids", int32[-1] is new'],
            id="third-output",
        ),
        pytest.param(
            offering(serving_default=signature(), __saved_model_init_op=signature()),
            default(),
            [],
            id="tensorflow's-own-signature-gone",
        ),
    ],
)
def test_what_clients_do_not_notice_is_not_breaking(
    before: Interface, after: Interface, harmless: list[str]
) -> None:
    assert found(before, after) == ([], harmless)
    assert not interface.breaking(differences(before, after))


def test_a_graph_with_no_signature_but_tensorflows_own_answers_nobody() -> None:
    after = offering(__saved_model_init_op=signature())
    assert found(default(), after) == (["no signature at all: no request is answered"], [])


@pytest.mark.parametrize("unreadable", ["before", "after"])
def test_what_is_not_known_breaks_nobody_and_says_why(unreadable: str) -> None:
    unknown = Interface(message="saved_model.pb is larger than 2 GB")
    before, after = (unknown, default()) if unreadable == "before" else (default(), unknown)
    assert differences(before, after) == (
        Difference(
            "",
            breaking=False,
            text=f"not known {unreadable} the change: saved_model.pb is larger than 2 GB",
        ),
    )


def test_the_default_signature_is_told_first_and_what_breaks_before_what_does_not() -> None:
    before = offering(a=signature(), serving_default=signature())
    after = offering(
        a=signature({"x": IMAGES}), new=signature(), serving_default=signature({"y": IMAGES})
    )
    assert [each.text for each in differences(before, after)] == [
        'signature "serving_default": input "images" is called "y" now',
        'signature "a": input "images" is called "x" now',
        'signature "new" is new',
    ]
    assert [each.signature for each in differences(before, after)] == [
        "serving_default",
        "a",
        "new",
    ]


def test_a_message_holds_as_many_as_fit_and_says_how_many_do_not() -> None:
    several = [
        Difference("", breaking=False, text="harmless"),
        Difference("", breaking=True, text="first"),
        Difference("", breaking=True, text="second"),
    ]
    assert message([]) == ""
    assert message(several) == "first; second; harmless"
    assert message(several, 22) == "first; and 2 more"
    assert message(several, 4) == "f…"


def test_names_of_any_length_and_content_stay_one_line() -> None:
    before = default({"a\x1b[31m\n" + "b" * 5000: IMAGES})
    after = default({"c" * 5000: of("x" * 5000, *range(500))})
    (gone, new) = differences(before, after)
    for each in (gone, new):
        assert each.text.isprintable()
        assert len(each.text.encode()) < 500


NAMES = st.sampled_from(["serving_default", "a", "b", "c_bytes", "__saved_model_init_op"])
TENSORS = st.builds(
    TensorSpec,
    dtype=st.sampled_from(["float32", "string"]),
    shape=st.none() | st.lists(st.sampled_from([-1, 1, 2]), max_size=3).map(tuple),
    optional=st.booleans(),
)
SIGNATURES = st.builds(
    SignatureSpec,
    method=st.sampled_from([PREDICT, "tensorflow/serving/regress"]),
    inputs=st.dictionaries(NAMES, TENSORS, max_size=3),
    outputs=st.dictionaries(NAMES, TENSORS, max_size=3),
)
INTERFACES = st.builds(Interface, signatures=st.dictionaries(NAMES, SIGNATURES, max_size=3))


@given(INTERFACES)
def test_the_same_interface_does_not_differ(one: Interface) -> None:
    assert differences(one, one) == ()


def seen_by_clients(one: Interface) -> dict[str, SignatureSpec]:
    """Outputs have no default, and TensorFlow's own signatures no client."""
    return {
        name: SignatureSpec(
            method=each.method,
            inputs=each.inputs,
            outputs={
                output: TensorSpec(dtype=spec.dtype, shape=spec.shape)
                for output, spec in each.outputs.items()
            },
        )
        for name, each in one.signatures.items()
        if not name.startswith("__saved_model_")
    }


@given(INTERFACES, INTERFACES)
def test_whatever_differs_one_way_differs_the_other_way(one: Interface, other: Interface) -> None:
    there, back = differences(one, other), differences(other, one)
    equal = seen_by_clients(one) == seen_by_clients(other)
    assert (there == ()) == (back == ()) == equal


@given(INTERFACES, INTERFACES, st.integers(50, 300))
def test_a_message_keeps_to_its_limit_and_begins_with_what_breaks(
    one: Interface, other: Interface, limit: int
) -> None:
    seen = differences(one, other)
    line = message(seen, limit)
    assert len(line.encode()) <= limit
    assert bool(line) == bool(seen)
    if interface.breaking(seen):
        first = next(each for each in seen if each.breaking)
        assert line[:20] == first.text[:20]


@given(st.data())
def test_a_version_that_takes_and_gives_no_less_breaks_nobody(data: st.DataObject) -> None:
    before = data.draw(INTERFACES)
    optional = data.draw(TENSORS.map(lambda spec: msgspec.structs.replace(spec, optional=True)))
    wider = {
        name: msgspec.structs.replace(
            each,
            inputs={
                **{
                    entry: TensorSpec(dtype=spec.dtype, shape=None, optional=True)
                    for entry, spec in each.inputs.items()
                },
                "an_option": optional,
            },
        )
        for name, each in before.signatures.items()
    }
    after = Interface(signatures={**wider, "one_more": signature()})
    assert not interface.breaking(differences(before, after))
