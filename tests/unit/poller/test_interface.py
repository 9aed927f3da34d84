"""What a version offers to clients, as its graph says, in both forms of a SavedModel."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
from google.protobuf import text_format
from hypothesis import given, settings
from hypothesis import strategies as st

from development_model_server.protos import DataType, MetaGraphDef, SignatureDef
from model_poller.checks import dtypes, interface
from model_poller.checks.interface import MAX_NAME, MAX_SIGNATURES, read
from model_poller.status import Interface, SignatureSpec, TensorSpec
from tests.unit.poller.doubles import field

if TYPE_CHECKING:
    from pathlib import Path

PREDICT = "tensorflow/serving/predict"
FLOAT, STRING, INT64 = 1, 7, 9

Shape = tuple[int, ...] | None


def signature(
    inputs: dict[str, tuple[int, Shape]],
    outputs: dict[str, tuple[int, Shape]] | None = None,
    *,
    method: str = PREDICT,
    optional: tuple[str, ...] = (),
) -> SignatureDef:
    built = SignatureDef(method_name=method)
    for where, tensors in ((built.inputs, inputs), (built.outputs, outputs or {})):
        for name, (dtype, shape) in tensors.items():
            info = where[name]
            info.name, info.dtype = f"{name}:0", dtype
            info.tensor_shape.unknown_rank = shape is None
            for size in shape or ():
                info.tensor_shape.dim.add().size = size
    for name in optional:
        built.defaults[name].float_val.append(0.5)
    return built


def meta_graph(signatures: dict[str, SignatureDef], *tags: str) -> MetaGraphDef:
    graph = MetaGraphDef()
    graph.meta_info_def.tags.extend(tags)
    graph.meta_info_def.stripped_op_list.op.add().name = "serve"
    graph.graph_def.node.add(name="x", op="Placeholder").attr["dtype"].type = FLOAT
    graph.saver_def.filename_tensor_name = 'a "{" # b'
    for name, content in signatures.items():
        graph.signature_def[name].CopyFrom(content)
    return graph


def write(folder: Path, *graphs: MetaGraphDef, text: bool = False) -> Path:
    if text:
        content = "saved_model_schema_version: 1\n" + "".join(
            f"meta_graphs {{\n{text_format.MessageToString(graph)}}}\n" for graph in graphs
        )
        (folder / "saved_model.pbtxt").write_text(content)
    else:
        wire = b"\x08\x01" + b"".join(field(2, g.SerializeToString()) for g in graphs)
        (folder / "saved_model.pb").write_bytes(wire)
    return folder


BOTH = pytest.mark.parametrize("text", [False, True])


@BOTH
def test_inputs_and_outputs_are_told_as_clients_see_them(tmp_path: Path, text: bool) -> None:
    graph = meta_graph(
        {
            "serving_default": signature(
                {"image": (FLOAT, (-1, 224, 224, 3)), "top": (INT64, ())},
                {"scores": (FLOAT, (-1, 1000)), "labels_bytes": (STRING, None)},
                optional=("top",),
            ),
            "größe": signature({"x": (STRING, (-1,))}, method="tensorflow/serving/regress"),
            "__saved_model_init_op": signature({}),
            "__saved_model_train_op": signature({"x": (FLOAT, ())}),
        },
        "serve",
    )
    assert read(write(tmp_path, graph, text=text)) == Interface(
        signatures={
            "serving_default": SignatureSpec(
                method=PREDICT,
                inputs={
                    "image": TensorSpec(dtype="float32", shape=(-1, 224, 224, 3)),
                    "top": TensorSpec(dtype="int64", shape=(), optional=True),
                },
                outputs={
                    "labels_bytes": TensorSpec(dtype="string", shape=None),
                    "scores": TensorSpec(dtype="float32", shape=(-1, 1000)),
                },
            ),
            "größe": SignatureSpec(
                method="tensorflow/serving/regress",
                inputs={"x": TensorSpec(dtype="string", shape=(-1,))},
            ),
        }
    )


@BOTH
@pytest.mark.parametrize("first", [0, 1, 2])
def test_the_graph_tagged_serve_alone_comes_before_those_for_other_devices(
    tmp_path: Path, text: bool, first: int
) -> None:
    graphs = [
        meta_graph({"train": signature({})}, "train"),
        meta_graph({"gpu": signature({})}, "gpu", "serve"),
        meta_graph({"cpu": signature({})}, "serve"),
    ]
    graphs = graphs[first:] + graphs[:first]
    assert list(read(write(tmp_path, *graphs, text=text)).signatures) == ["cpu"]
    assert list(read(write(tmp_path, *graphs[:-1], text=text)).signatures) != ["train"]


@BOTH
def test_an_empty_tag_is_one(tmp_path: Path, text: bool) -> None:
    """By which a server would have to ask for the graph as well."""
    graphs = [
        meta_graph({"odd": signature({})}, "", "serve"),
        meta_graph({"cpu": signature({})}, "serve"),
    ]
    assert list(read(write(tmp_path, *graphs, text=text)).signatures) == ["cpu"]


@BOTH
def test_a_graph_without_the_tag_or_without_signatures_is_told_so(
    tmp_path: Path, text: bool
) -> None:
    other = write(tmp_path, meta_graph({"x": signature({})}, "train"), text=text)
    assert "no graph has the tag serve" in read(other).message
    assert read(write(tmp_path, meta_graph({}, "serve"), text=text)) == Interface()


@BOTH
@pytest.mark.parametrize(
    ("signatures", "message"),
    [
        (
            {f"s{i}": signature({}) for i in range(MAX_SIGNATURES + 1)},
            f"more than {MAX_SIGNATURES} signatures",
        ),
        (
            {"s": signature({f"{i}": (FLOAT, ()) for i in range(interface.MAX_TENSORS + 1)})},
            "bytes",
        ),
        ({"s": signature({"n" * (MAX_NAME + 1): (FLOAT, ())})}, f"more than {MAX_NAME} characters"),
        ({"n" * 5000: signature({})}, f"more than {MAX_NAME} characters"),
        ({"s": signature({}, method="n" * 5000)}, f"more than {MAX_NAME} characters"),
        ({"s": signature({"x": (FLOAT, (1,) * 33)})}, "more than 32 dimensions"),
        (
            {f"s{i}": signature({"€" * 250: (FLOAT, ())}) for i in range(60)}
            | {f"t{i}": signature({"€" * 250: (FLOAT, ())}) for i in range(4)}
            | {"u": signature({f"{'€' * 250}{i}": (FLOAT, ()) for i in range(40)})},
            "more than 65536 bytes",
        ),
    ],
)
def test_what_is_too_much_is_not_told_and_says_so(
    tmp_path: Path, text: bool, signatures: dict[str, SignatureDef], message: str
) -> None:
    found = read(write(tmp_path, meta_graph(signatures, "serve"), text=text))
    assert found.signatures == {}
    assert message in found.message


def test_many_tensors_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "MAX_BYTES", 1 << 30)
    many = signature({f"{i}": (FLOAT, ()) for i in range(interface.MAX_TENSORS + 1)})
    found = read(write(tmp_path, meta_graph({"s": many}, "serve")))
    assert f"more than {interface.MAX_TENSORS} inputs and outputs" in found.message


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x12\xff",
        b"\x12\x05ab",
        field(2, field(1, field(4, b"serve")) + field(5, field(2, b"\xff\xff"))),
        field(2, field(1, field(4, b"serve")) + b"\x2b"),
    ],
)
def test_a_broken_graph_says_what_is_wrong(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "saved_model.pb").write_bytes(content)
    found = read(tmp_path)
    assert "saved_model.pb can't be read" in found.message
    assert not found.signatures


@pytest.mark.parametrize(
    "text",
    ["}", "meta_graphs {", "meta_graphs { " * 300, "a {} }"],
)
def test_a_broken_text_says_what_is_wrong(tmp_path: Path, text: str) -> None:
    (tmp_path / "saved_model.pbtxt").write_text(text)
    assert "saved_model.pbtxt can't be read" in read(tmp_path).message


def test_a_text_of_other_spaces_brackets_and_strings_is_read(tmp_path: Path) -> None:
    (tmp_path / "saved_model.pbtxt").write_text(
        """meta_graphs < # } "
          meta_info_def:{tags:'ser' "ve"}
          collection_def { key: "signature_def" value { node_list { value: "}" } } }
          signature_def { key: "s\\303\\244" value: <
            inputs { key: "x" value {
              dtype: 1 tensor_shape { dim { size: 0x10 } dim { size:-1 } } } }
            method_name: "m"
          > }
        >"""
    )
    assert read(tmp_path).signatures == {
        "sä": SignatureSpec(method="m", inputs={"x": TensorSpec(dtype="float32", shape=(16, -1))})
    }


def test_a_large_text_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(interface, "TEXT_BYTES", 100)
    folder = write(tmp_path, meta_graph({"s": signature({})}, "serve"), text=True)
    assert "more than 100 bytes of text" in read(folder).message


NAMES = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=20)
SHAPES = st.none() | st.lists(st.integers(-1, 2**63 - 1), max_size=5).map(tuple)
TENSORS = st.dictionaries(NAMES, st.tuples(st.integers(1, 32), SHAPES), max_size=4)


@settings(max_examples=100)
@given(
    built=st.dictionaries(
        NAMES, st.builds(signature, TENSORS, TENSORS, method=NAMES), max_size=4
    ).filter(lambda named: not any(name.startswith("__saved_model_") for name in named))
)
def test_both_forms_tell_the_same_whatever_is_in_them(
    tmp_path_factory: pytest.TempPathFactory, built: dict[str, SignatureDef]
) -> None:
    wanted = {
        name: SignatureSpec(
            method=content.method_name,
            inputs=_specs(content.inputs),
            outputs=_specs(content.outputs),
        )
        for name, content in built.items()
    }
    for text in (False, True):
        folder = write(tmp_path_factory.mktemp("m"), meta_graph(built, "serve"), text=text)
        assert read(folder) == Interface(signatures=wanted), text


def _specs(tensors: Any) -> dict[str, TensorSpec]:
    return {
        name: TensorSpec(
            dtype=dtypes.name(info.dtype),
            shape=None
            if info.tensor_shape.unknown_rank
            else tuple(dim.size for dim in info.tensor_shape.dim),
        )
        for name, info in tensors.items()
    }


@settings(max_examples=200)
@given(content=st.binary(max_size=200), cut=st.integers(0, 400))
def test_damage_is_a_message_and_never_an_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, cut: int
) -> None:
    folder = tmp_path_factory.mktemp("m")
    whole = field(2, meta_graph({"s": signature({"x": (1, (1, 2))})}, "serve").SerializeToString())
    (folder / "saved_model.pb").write_bytes(whole[:cut] + content + whole[cut + len(content) :])
    read(folder)


def test_types_have_tensorflows_names() -> None:
    for name, number in DataType.items():
        if 0 < number <= 32:
            assert dtypes.number(name) == number
    assert [dtypes.name(n) for n in (1, 2, 3, 7, 14, 19, 25, 99, -1)] == [
        *("float32", "float64", "int32", "string", "bfloat16", "float16", "float8_e4m3fn"),
        *("dtype 99", "dtype -1"),
    ]
