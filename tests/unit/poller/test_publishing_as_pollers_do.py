"""What `model_publish` accepts a poller takes, and what it refuses no poller would serve."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import tempfile
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from model_poller.bring import Bringer, Demands
from model_poller.checks import manifest
from model_poller.checks.signature import SecretKey
from model_poller.errors import BrokenVersionError, IncompleteVersionError
from model_poller.model_server.records import framed
from model_poller.publishing import export, packing
from model_poller.publishing.main import main
from model_poller.publishing.publish import FOLDER
from model_poller.stores.opening import SourceSettings, open_source
from model_poller.stores.uri import parse_uri
from model_poller.versions import discover
from model_poller.volume.store import Store
from tests.unit.poller.doubles import below, field, graph, model, tarred, zipped
from tests.unit.poller.test_tensors import SHARD, saved

if TYPE_CHECKING:
    from collections.abc import Mapping

FORMATS = [*packing.FORMATS, FOLDER]
WARMUP = "assets.extra/tf_serving_warmup_requests"


def write(folder: Path, files: Mapping[str, bytes]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def publish(export_dir: Path, uri: Path, *more: str) -> tuple[int, str]:
    """Run the command; returns its exit code and what it said."""
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(io.StringIO()):
        code = main([str(export_dir), f"file://{uri}", *more])
    return code, said.getvalue()


def bring(bucket: Path, root: Path, marker: str | None = None, version: int = 1) -> Path:
    """Let a poller take the version; returns the folder that it has then."""
    root.mkdir()
    source = open_source(SourceSettings(locations=(parse_uri(f"file://{bucket}"),)))
    store = Store(root / "model", root)
    store.prepare()
    settled: dict[int, str] = {}
    for _ in range(2):
        found = discover(source.list(), settled, marker=marker, growing=source.growing)
        settled = {number: each.fingerprint for number, each in found.items()}
    if verdict := found[version].incomplete:
        raise IncompleteVersionError(verdict.reason, verdict.message)
    Bringer(source, store, Demands(marker=marker)).bring(
        found[version], stopped=threading.Event(), progress=lambda _: None
    )
    return root / f".retained/{version}"


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    return write(tmp_path / "export", model())


@pytest.fixture
def bucket(tmp_path: Path) -> Path:
    (tmp_path / "resnet").mkdir()
    return tmp_path / "resnet"


NOISE = {
    ".DS_Store": b"x",
    "variables/._variables.index": b"x",
    "__MACOSX/a": b"x",
    "._dir/b": b"b",
}


@pytest.mark.parametrize("form", FORMATS)
def test_what_macos_adds_is_left_out(
    exported: Path, bucket: Path, tmp_path: Path, form: str
) -> None:
    write(exported, NOISE)
    code, said = publish(exported, bucket, f"--format={form}")
    assert code == 0, said
    assert "left out" in said
    taken = bring(bucket, tmp_path / "pod")
    there = {p.relative_to(taken.resolve()).as_posix() for p in taken.resolve().rglob("*")}
    assert there.isdisjoint({".DS_Store", "variables/._variables.index", "__MACOSX"})
    assert "._dir/b" in there


def test_a_manifest_by_hand_may_list_what_the_unpacking_leaves_out(tmp_path: Path) -> None:
    folder = write(tmp_path / "made", {**model(), **NOISE})
    manifest.write(folder)
    files = {
        p.relative_to(folder).as_posix(): p.read_bytes() for p in folder.rglob("*.*") if p.is_file()
    }
    files |= {"SHA256SUMS": (folder / "SHA256SUMS").read_bytes(), "._dir/b": b"b"}
    write(tmp_path / "resnet", {"1.zip": zipped(files)})
    assert bring(tmp_path / "resnet", tmp_path / "pod").is_dir()


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("change", ["same size", "longer", "shorter", "gone"])
def test_a_file_that_changes_while_it_is_packed_is_not_published(
    exported: Path, bucket: Path, form: str, change: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    shard = exported / "variables/variables.data-00000-of-00001"
    really = export.seal

    def seal(*arguments: object) -> dict[str, bytes]:
        content = shard.read_bytes()
        match change:
            case "same size":
                shard.write_bytes(bytes(len(content)))
            case "longer":
                shard.write_bytes(content + b"x")
            case "shorter":
                shard.write_bytes(content[:-1])
            case "gone":
                shard.unlink()
        return really(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(export, "seal", seal)
    code, said = publish(exported, bucket, f"--format={form}")
    assert code == 3
    assert "'variables/variables.data-00000-of-00001' of the export changed" in said
    assert not list(bucket.iterdir())


@pytest.mark.parametrize("form", FORMATS)
def test_while_somebody_writes_to_the_export_nothing_is_published_that_no_poller_takes(
    exported: Path, bucket: Path, tmp_path: Path, form: str
) -> None:
    shard = exported / "variables/variables.data-00000-of-00001"
    ended = threading.Event()

    def scribble() -> None:
        content = shard.read_bytes()
        while not ended.is_set():
            with shard.open("r+b") as file:
                content = bytes(255 - byte for byte in content)
                file.write(content)

    thread = threading.Thread(target=scribble)
    thread.start()
    try:
        published = [publish(exported, bucket, f"--format={form}")[0] == 0 for _ in range(20)]
    finally:
        ended.set()
        thread.join()
    for version in range(1, 1 + sum(published)):
        bring(bucket, tmp_path / f"pod-{version}", version=version)


@pytest.mark.parametrize("form", FORMATS)
def test_what_is_sent_was_unpacked_and_checked(
    exported: Path, bucket: Path, form: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk, or the packing itself, may do damage too."""
    really = packing.pack

    def pack(folder: Path, into: Path, seal: packing.Seal) -> None:
        really(folder, into, seal)
        damaged = into / "saved_model.pb" if into.is_dir() else into
        with damaged.open("r+b") as file:
            file.seek(120)
            file.write(b"damage")

    monkeypatch.setattr(packing, "pack", pack)
    code, said = publish(exported, bucket, f"--format={form}")
    assert code == 3, said
    assert not list(bucket.iterdir())


def text_graph(tag: str, signature: str | None) -> bytes:
    lines = ["saved_model_schema_version: 1", "meta_graphs {", "  meta_info_def {"]
    lines += [f'    tags: "{tag}"', "  }"]
    if signature:
        lines += ["  signature_def {", f'    key: "{signature}"', "    value {", "    }", "  }"]
    return "\n".join([*lines, "}", ""]).encode()


@pytest.mark.parametrize(
    ("file", "content", "told"),
    [
        (
            "saved_model.pb",
            graph(tags=("train",), saver=False),
            "tags: { serve }, which TF Serving",
        ),
        ("saved_model.pb", graph(tags=(), saver=False), "matching supplied tags: { serve }"),
        ("saved_model.pb", graph(signatures=(), saver=False), "it has no signatures"),
        (
            "saved_model.pb",
            graph(signatures=("__saved_model_init_op",), saver=False),
            "it has no signatures",
        ),
        ("saved_model.pbtxt", text_graph("train", "serving_default"), "{ serve }"),
        ("saved_model.pbtxt", text_graph("serve", None), "it has no signatures"),
    ],
)
def test_what_no_model_server_would_load_or_answer_with_is_not_sent(
    tmp_path: Path, bucket: Path, file: str, content: bytes, told: str
) -> None:
    code, said = publish(write(tmp_path / "export", {file: content}), bucket)
    assert code == 3
    assert told in said
    assert not list(bucket.iterdir())


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("saved_model.pb", graph(saver=False)),
        ("saved_model.pbtxt", text_graph("serve", "serving_default")),
        # The same, as other programs than TensorFlow write it.
        ("saved_model.pbtxt", b" ".join(text_graph("serve", "serving_default").split())),
        (
            "saved_model.pbtxt",
            b"meta_graphs: <\n\tmeta_info_def: {tags: 'ser' 've'}\n"
            b"\tsignature_def <key: 'serving_default', value {}>\n>\n",
        ),
    ],
)
def test_a_graph_of_either_form_is_sent(
    tmp_path: Path, bucket: Path, file: str, content: bytes
) -> None:
    code, said = publish(write(tmp_path / "export", {file: content}), bucket)
    assert code == 0, said


def test_a_graph_that_needs_other_tags_is_told(tmp_path: Path, bucket: Path) -> None:
    made = write(tmp_path / "e", {"saved_model.pb": graph(tags=("serve", "tpu"), saver=False)})
    code, said = publish(made, bucket)
    assert code == 0
    assert "{ serve tpu }: TF Serving needs them as --saved_model_tags" in said


def test_damaged_warm_up_requests_are_not_sent(exported: Path, bucket: Path) -> None:
    write(exported, {WARMUP: b"no TFRecord at all, but long enough"})
    code, said = publish(exported, bucket)
    assert code == 3
    assert f"{WARMUP}: record 1 does not begin like one of a TFRecord" in said


def asking(kind: int, *signatures: str) -> bytes:
    """A record of a request by signatures: one, but for a MultiInferenceRequest (4)."""
    specs = [field(1, field(1, b"m") + field(3, name.encode())) for name in signatures]
    request = b"".join(field(1, spec) if kind == 4 else spec for spec in specs)
    return framed(field(kind, field(1, request)))


@pytest.mark.parametrize(
    ("records", "told"),
    [
        (asking(6, "serving_default"), "'classify', 'labels'"),
        (asking(6, "labels") + asking(2, ""), "'classify'"),
        (asking(6, "") + asking(4, "labels", "classify"), ""),
        (asking(3, "classify") + asking(6, "labels") + framed(field(6, field(1, b""))), ""),
        (framed(field(6, field(1, b"no message"))), ""),
        (b"", ""),
    ],
    ids=["one", "two", "several at once", "no name", "not to be read", "no file"],
)
def test_signatures_that_no_warm_up_request_asks_by_are_told(
    tmp_path: Path, bucket: Path, records: bytes, told: str
) -> None:
    signatures = ("serving_default", "labels", "classify")
    files = {"saved_model.pb": graph(signatures=signatures, saver=False)}
    export = write(tmp_path / "export", {**files, **({WARMUP: records} if records else {})})
    code, said = publish(export, bucket)
    assert code == 0, said
    assert (f"no warm-up request asks by the signature {told}: " in said) is bool(told)
    assert ("no warm-up request" in said) is bool(told)


GOLDEN = framed(field(6, field(1, b"a request") + field(2, b"an answer")))
COLD = framed(field(6, field(1, b"a request")))


@pytest.mark.parametrize("form", FORMATS)
def test_golden_records_come_into_the_version_behind_its_own_each_once(
    exported: Path, bucket: Path, tmp_path: Path, form: str
) -> None:
    write(exported, {WARMUP: COLD})
    write(tmp_path, {"golden": GOLDEN + COLD + GOLDEN})
    code, said = publish(exported, bucket, f"--golden={tmp_path / 'golden'}", f"--format={form}")
    assert code == 0, said
    assert f"1 records of {tmp_path / 'golden'} are put into {WARMUP}, which has 2 now" in said
    brought = bring(bucket, tmp_path / "pod")
    assert (brought / WARMUP).read_bytes() == COLD + GOLDEN
    digest = hashlib.sha256(COLD + GOLDEN).hexdigest()
    assert f"{digest}  {WARMUP}" in (brought / "SHA256SUMS").read_text()
    assert (exported / WARMUP).read_bytes() == COLD, "the export is left as it is"


def test_golden_records_come_into_a_version_without_warm_up_requests(
    exported: Path, bucket: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"golden": GOLDEN})
    assert publish(exported, bucket, f"--golden={tmp_path / 'golden'}")[0] == 0
    assert (bring(bucket, tmp_path / "pod") / WARMUP).read_bytes() == GOLDEN
    assert not (exported / WARMUP).exists()


@pytest.mark.parametrize(
    ("content", "own", "message"),
    [
        (None, b"", "No such file"),
        (b"", b"", "it is empty"),
        (b"no TFRecord at all, but long enough", b"", "record 1 does not begin like one"),
        (COLD, b"", "no record in it carries an answer"),
        (framed(b"no log"), b"", "record 1 is no PredictionLog"),
        (
            GOLDEN,
            b"".join(framed(field(6, field(1, str(n).encode()))) for n in range(1000)),
            "there are 1001 records",
        ),
    ],
    ids=["missing", "empty", "no TFRecord", "no answer", "no log", "too many"],
)
def test_golden_records_that_can_not_be_used_are_refused_before_anything_is_sent(
    exported: Path, bucket: Path, tmp_path: Path, content: bytes | None, own: bytes, message: str
) -> None:
    if own:
        write(exported, {WARMUP: own})
    if content is not None:
        write(tmp_path, {"golden": content})
    code, said = publish(exported, bucket, f"--golden={tmp_path / 'golden'}")
    assert code == 2
    assert f"--golden={tmp_path / 'golden'} can't be used: " in said
    assert message in said
    assert not list(bucket.iterdir())


def test_golden_records_do_not_come_beside_a_manifest_that_does_not_know_them(
    exported: Path, bucket: Path, tmp_path: Path
) -> None:
    write(tmp_path, {"golden": GOLDEN})
    write(exported, {"SHA256SUMS": b""})
    code, said = publish(exported, bucket, f"--golden={tmp_path / 'golden'}")
    assert code == 2
    assert "SHA256SUMS, which says what its files are: remove it" in said


@pytest.mark.parametrize("form", FORMATS)
def test_damaged_weights_are_not_sent(tmp_path: Path, bucket: Path, form: str) -> None:
    code, said = publish(saved(tmp_path / "whole"), bucket, f"--format={form}")
    assert code == 0, said
    damaged = saved(tmp_path / "damaged", bytes([SHARD[0] ^ 1]) + SHARD[1:])
    code, said = publish(damaged, bucket, f"--format={form}")
    assert code == 3
    assert "has not the checksum that variables/variables.index says" in said
    assert "SHA256SUMS" not in said


@pytest.mark.parametrize("unreadable", ["assets.extra", "saved_model.pb"])
def test_an_export_that_can_not_be_read_whole_is_not_sent(
    exported: Path, bucket: Path, unreadable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(exported, {"assets.extra/notes": b"x"})
    scandir, opened = os.scandir, Path.open

    # Whoever runs the tests may be allowed to read everything.
    def refusing_scandir(folder: Path) -> object:
        if str(folder) == str(exported / unreadable):
            raise PermissionError(13, "Permission denied", str(folder))
        return scandir(folder)

    def refusing_open(path: Path, *arguments: object, **named: object) -> object:
        if path.name == unreadable:
            raise PermissionError(13, "Permission denied", str(path))
        return opened(path, *arguments, **named)  # type: ignore[call-overload]

    monkeypatch.setattr(os, "scandir", refusing_scandir)
    monkeypatch.setattr(Path, "open", refusing_open)
    code, said = publish(exported, bucket)
    assert code == 3
    assert f"Permission denied: '{exported}/{unreadable}'" in said


@pytest.mark.parametrize("inside", [["1"], ["9", "10"], ["latest"]])
def test_the_folder_above_an_export_is_told_from_an_export(
    tmp_path: Path, bucket: Path, inside: list[str]
) -> None:
    for name in inside:
        write(tmp_path / "exports" / name, model())
    code, said = publish(tmp_path / "exports", bucket)
    assert code == 3
    assert f"give {tmp_path}/exports/{inside[-1]} instead" in said
    assert "anew" not in said


def test_a_part_of_an_export_is_told_from_an_export(exported: Path, bucket: Path) -> None:
    code, said = publish(exported / "variables", bucket)
    assert code == 3
    assert f"give {exported} instead" in said


@pytest.mark.parametrize("there", ["8.zip", "0008/saved_model.pb", "9/saved_model.pb"])
def test_a_uri_that_is_the_place_of_a_version_is_refused(
    exported: Path, tmp_path: Path, there: str
) -> None:
    write(tmp_path / "exp", {there: b"x"})
    code, said = publish(exported, tmp_path / "exp/9")
    assert code == 2
    assert f"give file://{tmp_path}/exp and --version=9" in said
    assert not (tmp_path / "exp/9/1.zip").exists()


def test_a_uri_that_is_a_version_is_refused(exported: Path, tmp_path: Path) -> None:
    write(tmp_path / "exp/latest", {"saved_model.pb": b"x"})
    code, said = publish(exported, tmp_path / "exp/latest")
    assert code == 2
    assert f"file://{tmp_path}/exp/latest is a SavedModel itself" in said


@pytest.mark.parametrize("there", ["8/1.zip", "readme", "8/1/saved_model.pb"])
def test_a_model_may_be_called_by_a_number(exported: Path, tmp_path: Path, there: str) -> None:
    write(tmp_path / "models", {there: b"x"})
    code, said = publish(exported, tmp_path / "models/9")
    assert code == 0, said


def test_the_name_of_an_archive_is_no_folder(exported: Path, tmp_path: Path) -> None:
    code, said = publish(exported, tmp_path / "resnet/9.zip")
    assert code == 2
    assert f"give the folder that holds the versions, file://{tmp_path}/resnet" in said


@pytest.mark.parametrize(
    "marker", ["variables", "Variables", ".", "..", "saved_model.pb", "SHA256SUMS", "a\nb", "MORE"]
)
def test_a_marker_has_a_name_of_its_own(exported: Path, bucket: Path, marker: str) -> None:
    write(exported, {"more": b""})
    code, said = publish(exported, bucket, "--format=folder", f"--marker={marker}")
    assert code == 2
    assert "--marker" in said
    assert not list(bucket.iterdir())


KEY = SecretKey(b"8 bytes!", bytes(range(32)))


@pytest.mark.parametrize(
    ("version", "name", "told"),
    [
        (7, "resnet", None),
        (6, "resnet", "was made for version 6, not for 7"),
        (7, "bert", "was made for the model bert, not for resnet"),
    ],
)
def test_a_signature_of_the_exports_own_has_to_be_for_this_version(
    exported: Path, bucket: Path, version: int, name: str, told: str | None
) -> None:
    manifest.write(exported)
    manifest.sign(exported, KEY, version, name)
    code, said = publish(exported, bucket, "--version=7")
    assert (code, told or "") == (3 if told else 0, told or "")
    assert (told or "") in said


def test_a_signature_of_nothing_is_refused(exported: Path, bucket: Path) -> None:
    manifest.write(exported)
    manifest.sign(exported, KEY, 1)
    (exported / "SHA256SUMS").unlink()
    code, said = publish(exported, bucket)
    assert code == 3
    assert "SHA256SUMS.minisig is there without the SHA256SUMS" in said


NAMES = st.one_of(
    st.sampled_from(
        [
            *("assets/words", "assets/Words", "assets/größe", "assets/gro\u0308ße", ".DS_Store"),
            *(
                "variables/._x",
                "__MACOSX/x",
                "SHA256SUMS",
                "SHA256SUMS.minisig",
                "1/saved_model.pb",
            ),
            *(
                "assets/a\\b",
                "assets/a\nb",
                "2/x",
                "saved_model.pbtxt",
                "variables",
                "DONE",
                WARMUP,
            ),
            *("a" * 255, "d/" * 32 + "x", "assets/ leading", "assets/trailing.", "._d/x", "CON"),
        ]
    ),
    st.text("ab/._ \u00e9", min_size=1, max_size=6),
)
CONTENTS = st.one_of(st.binary(max_size=40), st.sampled_from([bytes(5000), b"text " * 500]))
CHANGES = st.fixed_dictionaries(
    {
        "more": st.dictionaries(NAMES, CONTENTS, max_size=4),
        "less": st.sets(st.sampled_from(sorted(model())), max_size=1),
        "graph": st.sampled_from(
            [
                graph(),
                graph(saver=False),
                graph(assets=("words",)),
                graph(tags=("train",)),
                graph()[:-3],
                b"",
            ]
        ),
        "manifest": st.sampled_from(["none", "right", "of others", "unreadable"]),
    }
)
PLAIN: dict[str, object] = {"more": {}, "less": set(), "graph": graph(), "manifest": "none"}


def export_of(root: Path, changes: dict[str, object]) -> Path | None:
    """An export with these changes, if a file system can hold it."""
    folder = write(root / "export", {**model(), "saved_model.pb": changes["graph"]})  # type: ignore[dict-item]
    for name in changes["less"]:  # type: ignore[attr-defined]
        (folder / name).unlink()
    for name, content in changes["more"].items():  # type: ignore[attr-defined]
        try:
            if not Path(os.path.normpath(folder / name)).is_relative_to(folder):
                return None
            write(folder, {name: content})
        except OSError:
            return None
    match changes["manifest"]:
        case "right":
            manifest.write(folder)
        case "of others":
            (folder / "SHA256SUMS").write_text(f"{'0' * 64}  saved_model.pb\n")
        case "unreadable":
            (folder / "SHA256SUMS").write_text("nothing\n")
    return folder


def by_hand(folder: Path, form: str) -> dict[str, bytes]:
    """The same files as somebody would pack them who knows no better."""
    files = {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }
    match form:
        case "zip":
            return {"1.zip": zipped(files)}
        case "folder":
            return below("1", files)
        case _:
            return {f"1.{form}": tarred(files, "w:gz" if form == "tar.gz" else "w")}


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    changes=CHANGES, form=st.sampled_from(["zip", "tar", "tar.gz", "folder"]), marker=st.booleans()
)
@example(changes={**PLAIN, "more": dict.fromkeys(NOISE, b"x")}, form="zip", marker=False)
@example(
    changes={**PLAIN, "more": {"a/.DS_Store": b"x"}, "manifest": "right"}, form="tar", marker=False
)
@example(changes={**PLAIN, "more": {"DONE": b"x"}}, form="folder", marker=True)
@example(changes={**PLAIN, "graph": b""}, form="folder", marker=False)
@example(changes={**PLAIN, "graph": b""}, form="zip", marker=False)
def test_what_is_published_is_taken_and_what_is_quarantined_is_refused_in_the_same_words(
    changes: dict[str, object], form: str, marker: bool
) -> None:
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        folder = export_of(root, changes)
        if folder is None:
            return
        bucket = root / "resnet"
        bucket.mkdir()
        with_marker = ["--marker=DONE"] if marker and form == "folder" else []
        code, said = publish(folder, bucket, f"--format={form}", *with_marker)
        assert code in (0, 2, 3), said
        if code == 0:
            bring(bucket, root / "pod", marker="DONE" if with_marker else None)
        else:
            assert not list(bucket.iterdir())
        other = write(root / "other", by_hand(folder, form))
        fault = fault_of(other, root / "other-pod")
        assert not fault or code != 0
        # Of several faults at once the one may tell another first.
        one = sum(changes[kind] != PLAIN[kind] for kind in PLAIN) == 1 and len(changes["more"]) < 2  # type: ignore[arg-type]
        if fault and code == 3 and one:
            assert fault in said
        shutil.rmtree(root, ignore_errors=True)


def fault_of(bucket: Path, root: Path) -> str | None:
    """Why a poller doesn't take the version: without where it is, and what to do about it."""
    try:
        bring(bucket, root)
    except (BrokenVersionError, IncompleteVersionError) as error:
        told = str(error).partition(";")[0].replace(f"file://{bucket}", "")
        return re.sub(r"^/?1\S*:? ", "", told)
    return None
