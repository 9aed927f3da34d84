"""Images without a registry: what goes in, under which name, and when it has to be made again."""

from __future__ import annotations

import json
import tarfile
from pathlib import Path

import pytest

from devcluster import paths, recipes
from devcluster.addons import NAMES, Addons
from devcluster.errors import BuildError, UsageError
from devcluster.images import NodeImages, full_name, names_in, write_program_image

DOCKERFILE = """\
ARG BASE=python:3.12-slim
FROM ${BASE} AS build
COPY requirements/poller.lock \\
     /tmp/requirements.lock
COPY --chown=1:1 poller/model_poller /app/model_poller
FROM ${BASE}
COPY --from=build /app /app
"""


@pytest.fixture
def context(tmp_path: Path) -> Path:
    (tmp_path / "requirements").mkdir()
    (tmp_path / "requirements" / "poller.lock").write_text("a==1\n")
    package = tmp_path / "poller" / "model_poller"
    (package / "__pycache__").mkdir(parents=True)
    (package / "main.py").write_text("pass\n")
    (package / "__pycache__" / "main.cpython-311.pyc").write_text("compiled")
    return tmp_path


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("pause", "docker.io/library/pause:latest"),
        ("inferencemodel/operator:1.2.3", "docker.io/inferencemodel/operator:1.2.3"),
        ("localhost/a", "localhost/a:latest"),
        ("registry.example.com:5000/a/b:1", "registry.example.com:5000/a/b:1"),
        ("a@sha256:0", "docker.io/library/a@sha256:0"),
    ],
)
def test_names_are_written_out_as_the_kubelet_does(name: str, full: str) -> None:
    assert full_name(name) == full


def test_an_image_of_a_program_holds_it_and_starts_it(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_bytes(b"\x7fELF")
    write_program_image(program, "x/server:1", tmp_path / "image.tar")
    with tarfile.open(tmp_path / "image.tar") as archive:
        manifest = json.loads(archive.extractfile("manifest.json").read())[0]  # type: ignore[union-attr]
        config = json.loads(archive.extractfile(manifest["Config"]).read())  # type: ignore[union-attr]
        with tarfile.open(fileobj=archive.extractfile(manifest["Layers"][0])) as layer:
            assert layer.getmember("server").mode == 0o755
    assert manifest["RepoTags"] == ["docker.io/x/server:1"]
    assert config["config"]["Entrypoint"] == ["/server"]


def test_the_same_program_makes_the_same_image(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_bytes(b"\x7fELF")
    for name in ("a.tar", "b.tar"):
        write_program_image(program, "x/server:1", tmp_path / name)
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()


def archive(path: Path, name: str, content: object) -> Path:
    (path / name).write_text(json.dumps(content))
    with tarfile.open(path / "images.tar", "w") as tar:
        tar.add(path / name, name)
    return path / "images.tar"


def named(reference: str) -> dict[str, object]:
    annotations = {"org.opencontainers.image.ref.name": reference}
    return {"manifests": [{"digest": "sha256:0", "annotations": annotations}]}


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", [{"RepoTags": ["x/a:1"]}]),
        ("index.json", named("docker.io/x/a:1")),
    ],
)
def test_the_names_in_an_archive_are_found(tmp_path: Path, file: str, content: object) -> None:
    assert names_in(archive(tmp_path, file, content)) == ["docker.io/x/a:1"]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("manifest.json", [{"RepoTags": None}]),
        ("index.json", named("latest")),
        ("index.json", {"manifests": [{}]}),
        ("other.json", {}),
    ],
)
def test_an_archive_without_names_is_refused_with_what_to_do(
    tmp_path: Path, file: str, content: object
) -> None:
    with pytest.raises(UsageError, match=r"images\.tar.*(save them by name|make one with)"):
        names_in(archive(tmp_path, file, content))


def test_what_a_dockerfile_copies_is_found_but_not_what_comes_from_another_stage() -> None:
    assert recipes.copied(DOCKERFILE) == ["requirements/poller.lock", "poller/model_poller"]


def test_compiled_files_do_not_count(context: Path) -> None:
    files = recipes.context_files(context, recipes.copied(DOCKERFILE))
    assert [path.name for path in files] == ["main.py", "poller.lock"]


def test_a_copied_file_that_is_not_there_is_told(context: Path) -> None:
    with pytest.raises(BuildError, match="the Dockerfile copies missing, which is not in"):
        recipes.context_files(context, ["missing"])


def test_an_image_is_made_again_when_a_copied_file_its_recipe_or_its_base_changes(
    context: Path,
) -> None:
    first = recipes.content_key(DOCKERFILE, "base:1", context)
    assert recipes.content_key(DOCKERFILE, "base:1", context) == first
    assert recipes.content_key(DOCKERFILE, "base:2", context) != first
    assert recipes.content_key(DOCKERFILE + "USER 1\n", "base:1", context) != first
    (context / "unrelated").write_text("x")
    assert recipes.content_key(DOCKERFILE, "base:1", context) == first
    (context / "poller" / "model_poller" / "main.py").write_text("changed\n")
    assert recipes.content_key(DOCKERFILE, "base:1", context) != first


@pytest.mark.parametrize("name", recipes.names())
def test_every_recipe_of_the_project_finds_what_it_copies(name: str) -> None:
    text = (recipes.IMAGES / name / "Dockerfile").read_text()
    if "ARG BASE" in text:
        assert recipes.context_files(paths.REPOSITORY, recipes.copied(text))
    else:
        assert recipes.copied(text) == [name]


def test_images_of_another_state_of_the_project_are_tagged_with_its_version(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('[project]\nversion = "0.0.9"\n')
    assert recipes.tag("operator", tmp_path) == "docker.io/inferencemodel/operator:0.0.9"
    assert recipes.tag("operator") != recipes.tag("operator", tmp_path)


def test_a_build_gets_packages_from_where_the_machine_does() -> None:
    files = [
        "[global]\nindex-url = https://one.example.com\ntimeout = 5\nno-color = true\n",
        "[install]\nindex-url = https://two.example.com/%20\n",
    ]
    environment = {"PIP_TRUSTED_HOST": "three.example.com", "PIP_DEFAULT_TIMEOUT": "9", "HOME": "/"}
    assert recipes.pip_configuration(files, environment).splitlines() == [
        "[global]",
        "cert = /etc/ssl/certs/ca-certificates.crt",
        "index-url = https://two.example.com/%20",
        "trusted-host = three.example.com",
        "timeout = 5",
    ]


def test_an_unknown_image_is_told_with_those_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no images/opperator/Dockerfile: there are .*operator"):
        recipes.build_and_load(["opperator"], NodeImages(tmp_path, tmp_path))


@pytest.mark.parametrize("name", NAMES)
def test_the_clusters_own_pods_run_the_programs_that_were_built(name: str) -> None:
    programs = {each: Path(f"/cache/programs/{each}-0123456789abcdef/{each}") for each in NAMES}
    addons = Addons(programs, http_port=8080, https_port=8443, name_servers=False)
    manifest = addons.manifest(name)
    assert f"image: inferencemodel-devcluster/{name}:0123456789abcdef" in manifest
    assert "imagePullPolicy: Never" in manifest
    assert "$" not in manifest
    if name == "traefik":
        assert "hostPort: 8080, hostIP: 127.0.0.1" in manifest
