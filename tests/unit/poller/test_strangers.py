"""What users put where versions should be, and what they are told."""

from __future__ import annotations

import pytest

from model_poller.look import Looker
from model_poller.status import SourceReason, SourceStatus
from model_poller.stores import Entry, StoredObject
from model_poller.stores.uri import Location, parse_uri
from model_poller.strangers import MAX_NAMES, Strangers
from tests.unit.poller.doubles import MemorySource, below, model, zipped

MODEL = list(model())


def told(*paths: str, uri: str = "gs://models/imagenet") -> str:
    """What the status says of a bucket with these objects below the URI."""
    source = MemorySource()
    source.uri, source.locations = uri, (parse_uri(uri),)
    source.put_all(dict.fromkeys(paths, b"x"))
    said: list[SourceStatus] = []
    Looker(source, 30.0, lambda status, _: said.append(status)).look()
    assert said[0].reason is SourceReason.NO_VERSION_FOUND
    return said[0].message


@pytest.mark.parametrize(
    ("uri", "paths", "message"),
    [
        (
            "gs://models/imagenet/2",
            MODEL,
            "it is a version itself, with saved_model.pb, variables; give the folder above,"
            " gs://models/imagenet",
        ),
        ("s3://models/0002", ["saved_model.pbtxt"], "give the folder above, s3://models"),
        ("gs://models/2", ["variables/variables.index"], "give the folder above, gs://models"),
        (
            "az://models/imagenet",
            MODEL,
            "it is a SavedModel itself, with saved_model.pb, variables; move that into a folder of"
            " its version's number, az://models/imagenet/1/",
        ),
        (
            "gs://models",
            [f"resnet/1/{name}" for name in MODEL],
            "there is resnet/1; give the folder that holds one model's versions,"
            " gs://models/resnet",
        ),
        (
            "gs://models",
            ["resnet/1/saved_model.pb", "bert/0002.zip", "readme.md"],
            "there is bert/0002.zip and resnet/1; give the folder that holds one model's versions,"
            " gs://models/bert or gs://models/resnet",
        ),
        ("gs://models/m", ["v2.zip"], "v2.zip is no version's name; call it 2.zip"),
        ("gs://models/m", ["resnet-03.tar.gz"], "call it 3.tar.gz"),
        ("gs://models/m", ["2.ZIP"], "2.ZIP is no version's name; call it 2.zip"),
        ("gs://models/m", ["2.Tar.Gz"], "call it 2.tar.gz"),
        ("gs://models/m", ["2.tar.xz"], "pack it as 2.tar.zst or 2.zip"),
        ("gs://models/m", ["2.7z"], "pack it as 2.tar.zst or 2.zip"),
        (
            "gs://models/m",
            ["model.zip"],
            "model.zip has no version's number; call it by that, such as 1.zip",
        ),
        ("gs://models/m", ["model-1.2.zip"], "model-1.2.zip has no version's number"),
        ("gs://models/m", ["v2/saved_model.pb"], "v2/ is no version's number; call it 2/"),
        ("gs://models/m", ["version_2/saved_model.pb"], "call it 2/"),
        ("gs://models/m", ["1.0.3/saved_model.pb"], "call it by a whole one, such as 1/"),
        ("gs://models/m", [f"{2**63}/saved_model.pb"], "is more than the highest version"),
        ("gs://models/m", ["2"], "2 is a file; a version is a folder of that name"),
        (
            "s3://models/m",
            ["/1/saved_model.pb"],
            "there is s3://models/m//1, with two slashes in a row; upload it as s3://models/m/1",
        ),
        (
            "gs://models/m",
            ["export/saved_model.pb"],
            "there is a SavedModel in export/; call its folder by the version's number, 1/, or"
            " move it into one, export/1/, and give gs://models/m/export",
        ),
        (
            "gs://models/m",
            ["a/notes.txt"],
            "there are other folders; if one of them holds the model's versions, give"
            " gs://models/m/a",
        ),
        ("gs://models/m", ["notes.txt"], "there is only notes.txt; upload a folder 1/"),
        ("gs://models/m", [], "there is nothing; upload a folder 1/ or an archive 1.zip"),
        (
            "gs://models/m/2.zip",
            [],
            "it names a file; give the folder that the versions are in, gs://models/m",
        ),
        ("gs://models/m/2/saved_model.pb", [], "the versions are in, gs://models/m"),
    ],
)
def test_what_was_found_is_told_and_what_to_write_instead(
    uri: str, paths: list[str], message: str
) -> None:
    found = told(*paths, uri=uri)
    assert found.startswith(f"no version in {uri}: ")
    assert message in found


def test_names_alone_tell_enough() -> None:
    strangers = Strangers()
    root = Location("host", "models/2", "https")
    entries = [Entry(root, "saved_model.pb", False), Entry(root, "variables", True)]
    assert list(strangers.among(entries)) == entries
    assert "give the folder above, https://host/models" in strangers.instead_of_versions(root)


def test_what_looks_like_a_version_is_told_beside_others() -> None:
    source = MemorySource()
    source.put_all(
        {**below("1", model()), "v2.zip": zipped(model()), "readme.md": b"", "logs/a": b""}
    )
    said: list[SourceStatus] = []
    Looker(source, 30.0, lambda status, _: said.append(status)).look()
    assert said[0].reason is SourceReason.LISTED
    assert said[0].message == (
        "1 versions in gs://models/imagenet; v2.zip is no version's name; call it 2.zip"
    )


def test_of_ever_so_many_names_a_few_are_told() -> None:
    strangers = Strangers()
    root = Location("models", "")
    for item in strangers.among(
        StoredObject(root, f"{'x' * 200}{n}/1/saved_model.pb", 1, "1") for n in range(MAX_NAMES + 9)
    ):
        assert isinstance(item, StoredObject)
    message = strangers.instead_of_versions(root)
    assert "997 more" in message
    assert len(message) < 1000
