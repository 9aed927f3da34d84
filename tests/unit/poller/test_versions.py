"""From listings to versions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from model_poller.status import VersionReason
from model_poller.stores.uri import Location
from model_poller.versions import MAX_VERSION, StoredVersion, discover, parse_number
from model_poller.volume.places import learn
from tests.unit.poller.doubles import MemorySource, below, model, zipped


def found(
    source: MemorySource, *, settled: bool = True, marker: str | None = None
) -> dict[int, StoredVersion]:
    first = discover(source.list(), {})
    known = {version: stored.fingerprint for version, stored in first.items()}
    return discover(source.list(), known if settled else {}, marker=marker)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("0001", 1),
        ("0", 0),
        ("1700000000", 1700000000),
        (str(MAX_VERSION), MAX_VERSION),
        ("0" * 30 + "7", 7),
        (str(MAX_VERSION + 1), None),
        ("9" * 400, None),
        ("v1", None),
        ("1.0", None),
        ("-1", None),
        (" 1", None),
        ("", None),
        ("\u0661", None),
    ],
)
def test_numbers_are_read_as_the_model_server_reads_them(text: str, number: int | None) -> None:
    assert parse_number(text) == number


@pytest.mark.parametrize("number", ["1", "0001", str(MAX_VERSION)])
@pytest.mark.parametrize("ending", ["zip", "tar", "tar.gz", "tgz", "tar.zst", "tzst"])
@pytest.mark.parametrize("marker", [None, "_SUCCESS"])
def test_an_archive_is_complete_at_the_first_look(
    number: str, ending: str, marker: str | None
) -> None:
    source = MemorySource()
    source.put(f"{number}.{ending}", zipped(model()))
    version = found(source, settled=False, marker=marker)[int(number)]
    assert version.incomplete is None
    assert version.is_archive


def test_a_folder_is_complete_at_the_second_look_that_shows_the_same() -> None:
    source = MemorySource()
    source.put_all(below("0001", model()))
    verdict = found(source, settled=False)[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.UNSTABLE_LISTING
    assert found(source)[1].incomplete is None


def test_a_folder_with_its_marker_is_complete_at_the_first_look_and_without_it_never() -> None:
    source = MemorySource()
    source.put_all(below("0001", model()))
    verdict = found(source, marker="_SUCCESS")[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.MISSING_MARKER
    assert "imagenet/0001: its marker _SUCCESS is missing" in verdict.message
    source.put("0001/_SUCCESS", b"")
    assert found(source, settled=False, marker="_SUCCESS")[1].incomplete is None


def test_a_marker_does_not_make_a_folder_whole() -> None:
    source = MemorySource()
    source.put_all(below("1", model()))
    source.put("1/_SUCCESS", b"")
    source.delete("1/variables/variables.index")
    verdict = found(source, marker="_SUCCESS")[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.MISSING_VARIABLES


@pytest.mark.parametrize(
    "pair", [("0001.zip", "1.zip"), ("1.zip", "1.tar.gz"), ("01.tzst", "1.tar.zst")]
)
def test_two_archives_of_one_version_are_not_chosen_between(pair: tuple[str, str]) -> None:
    source = MemorySource()
    for name in pair:
        source.put(name, zipped(model()))
    source.put("2.zip", zipped(model()))
    versions = found(source)
    verdict = versions[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.DUPLICATE_VERSION
    assert all(name in verdict.message for name in pair)
    assert versions[2].incomplete is None


def test_two_folders_of_one_version_are_not_chosen_between() -> None:
    source = MemorySource()
    source.put_all({**below("0001", model()), **below("1", model())})
    verdict = found(source)[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.DUPLICATE_VERSION


def test_a_folder_that_lacks_a_shard_names_it() -> None:
    source = MemorySource()
    source.put_all(below("3", model(shards=2)))
    source.delete("3/variables/variables.data-00001-of-00002")
    verdict = found(source)[3].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.MISSING_VARIABLES
    assert "gs://models/imagenet/3: variables/variables.data-00001-of-00002" in verdict.message


def test_two_forms_of_one_version_are_not_chosen_between() -> None:
    source = MemorySource()
    source.put("0001.zip", zipped(model()))
    source.put_all(below("1", model()))
    verdict = found(source)[1].incomplete
    assert verdict is not None
    assert verdict.reason is VersionReason.DUPLICATE_VERSION
    assert "imagenet/0001.zip and gs://models/imagenet/1" in verdict.message


def test_what_is_no_version_is_left_alone() -> None:
    source = MemorySource()
    for name in (
        "readme.md",
        "v2/saved_model.pb",
        f"{MAX_VERSION + 1}.zip",
        "1.ZIP",
        "1.zip.tmp",
        "2",
        "tmp/3.zip",
        "4/",
        "5.txt",
    ):
        source.put(name, b"x")
    assert discover(source.list(), {}) == {}


@given(order=st.permutations(sorted(below("1", model(shards=2)))))
def test_the_order_of_a_listing_changes_nothing(order: list[str]) -> None:
    source = MemorySource()
    source.put_all(below("1", model(shards=2)))
    reference = found(source)
    source.objects = {name: source.objects[name] for name in order}
    assert found(source)[1].fingerprint == reference[1].fingerprint


@given(
    paths=st.lists(
        st.one_of(
            st.text(max_size=30),
            st.from_regex(r"[0-9]{1,25}(/.{0,9}|\.zip|\.tar\.zst)?", fullmatch=True),
        ),
        max_size=8,
        unique=True,
    ),
    marker=st.none() | st.text(min_size=1, max_size=5),
)
def test_any_listing_is_grouped_without_losing_or_doubling_an_object(
    paths: list[str], marker: str | None
) -> None:
    source = MemorySource()
    for path in paths:
        source.put(path, b"x")
    versions = discover(source.list(), {}, marker=marker)
    grouped = [stored.path for version in versions.values() for stored in version.objects]
    assert len(grouped) == len(set(grouped))
    assert set(grouped) <= set(paths)
    assert all(0 <= number <= MAX_VERSION for number in versions)
    assert all(version.incomplete or version.is_archive for version in versions.values())


def test_an_overwritten_object_changes_the_fingerprint() -> None:
    source = MemorySource()
    source.put("1.zip", b"same")
    before = found(source)[1].fingerprint
    source.put("1.zip", b"same")
    assert found(source)[1].fingerprint != before


@pytest.mark.parametrize(
    ("name", "prefix"),
    [
        ("0002.zip", ""),
        ("models/imagenet/0002.zip", "models/imagenet"),
        ("models/imagenet/2/saved_model.pb", "models/imagenet"),
        ("models/imagenet/2/variables/variables.index", "models/imagenet"),
    ],
)
def test_a_folder_of_versions_is_learnt_from_an_object_in_it(name: str, prefix: str) -> None:
    assert learn("b", name) == Location("b", prefix)


def test_nothing_is_learnt_from_other_objects() -> None:
    assert learn("b", "logs/today.txt") is None


@pytest.mark.parametrize(
    ("prefix", "name", "inside"),
    [
        ("", "1.zip", True),
        ("a", "a/1.zip", True),
        ("a", "ab/1.zip", False),
        ("a/b", "a/1.zip", False),
    ],
)
def test_a_place_knows_its_objects(prefix: str, name: str, inside: bool) -> None:
    assert Location("b", prefix).holds("b", name) is inside
    assert not Location("other", prefix).holds("b", name)
