"""Builds the project's images without a registry: a Debian base by mmdebstrap, then buildah.

The Dockerfiles in ``images/`` are the ones that a user builds from a public base image. Here their
``BASE`` is a small Debian of the machine's own release.
"""

from __future__ import annotations

import configparser
import contextlib
import fnmatch
import hashlib
import json
import os
import shlex
import subprocess
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from devcluster import build, locks, packages, paths
from devcluster.errors import BuildError, UsageError, with_log
from devcluster.images import full_name
from devcluster.progress import step

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from devcluster.images import NodeImages

#: Where buildah keeps what must not survive a reboot.
RUNROOT = paths.RUN.with_name(f"{paths.NAME}-buildah")
IMAGES = paths.REPOSITORY / "images"
_BASE_NAME = f"localhost/{paths.NAME}/base"
_CA_BUNDLE = "/etc/ssl/certs/ca-certificates.crt"
_PIP_CONFIGURATION = "/etc/pip.conf"
#: Not in the base: what nobody reads in a container.
_LEFT_OUT = ("/usr/share/doc/*", "/usr/share/man/*", "/usr/share/info/*", "/usr/share/locale/*")
#: Of these in the base all the same: what says the licences of what is in it.
_LEFT_IN = ("/usr/share/doc/*/copyright",)
#: Merges /usr at the start, as every installer has for years; later it would take all of Perl.
_MERGED_USR = Path("/usr/share/mmdebstrap/hooks/merged-usr")
#: What makes the base the same wherever it is made, and where a build's mounts go.
_FINISH = (
    'rm -rf "$1/etc/resolv.conf" "$1/etc/hostname" "$1"/etc/apt/sources.list*',
    f'touch "$1{_PIP_CONFIGURATION}"',
)
#: Settings of pip that say where packages come from; the rest is the Dockerfile's business.
_PIP_SETTINGS = ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout", "retries")


def names() -> list[str]:
    """The images that there are Dockerfiles for."""
    return sorted(path.parent.name for path in IMAGES.glob("*/Dockerfile"))


def tag(name: str, tree: Path = paths.REPOSITORY) -> str:
    """The full name under which a tree's manifests know one of the project's images."""
    return full_name(f"inferencemodel/{name}:{_version(tree)}")


def _version(tree: Path) -> str:
    project = tomllib.loads((tree / "pyproject.toml").read_text())["project"]
    return str(project["version"])


def copied(dockerfile: str) -> list[str]:
    """The patterns of what a Dockerfile copies from its context."""
    found: list[str] = []
    for line in dockerfile.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True, posix=True) if _copies(line) else []
        options = [word for word in words[1:] if word.startswith("--")]
        if words and not any(option.startswith("--from=") for option in options):
            found += [word for word in words[1:-1] if not word.startswith("--")]
    return found


def _copies(line: str) -> bool:
    return line.split(" ", 1)[0].upper() in {"COPY", "ADD"}


def context_files(context: Path, patterns: Sequence[str]) -> list[Path]:
    """The files in the context that the patterns mean, without what Python leaves behind.

    Raises:
        BuildError: a pattern means nothing.
    """
    files: set[Path] = set()
    for pattern in patterns:
        matches = list(context.glob(pattern.strip("/") or "*"))
        if not matches:
            raise BuildError(f"the Dockerfile copies {pattern}, which is not in {context}")
        for match in matches:
            files |= set(match.rglob("*")) if match.is_dir() else {match}
    return sorted(
        path
        for path in files
        if path.is_file() and not fnmatch.fnmatch(str(path), "*/__pycache__/*")
    )


def content_key(dockerfile: str, base: str, context: Path) -> str:
    """Changes when the image would."""
    digest = hashlib.sha256(f"{base}\0{dockerfile}".encode())
    for path in context_files(context, copied(dockerfile)):
        mode = path.stat().st_mode & 0o777
        digest.update(f"\0{path.relative_to(context)}\0{mode:o}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()[:16]


def pip_configuration(files: Sequence[str], environment: dict[str, str]) -> str:
    """Where the machine's pip gets its packages, as a pip.conf for the time of a build.

    ``files`` are the contents of the machine's own configuration files, the strongest last; the
    environment (``PIP_INDEX_URL`` and so on) is stronger still, as with pip itself.
    """
    settings: dict[str, str] = {}
    for content in files:
        parser = configparser.RawConfigParser()
        parser.read_string(content)
        for section in ("global", "install"):
            if parser.has_section(section):
                settings |= dict(parser.items(section))
    for name in _PIP_SETTINGS:
        variable = f"PIP_{name.upper().replace('-', '_')}"
        if variable in environment:
            settings[name] = environment[variable]
    if "PIP_DEFAULT_TIMEOUT" in environment:
        settings.setdefault("timeout", environment["PIP_DEFAULT_TIMEOUT"])
    lines = [f"{name} = {settings[name]}" for name in _PIP_SETTINGS if name in settings]
    return "\n".join(["[global]", f"cert = {_CA_BUNDLE}", *lines, ""])


@dataclass(frozen=True)
class Buildah:
    """buildah on a store: one of our own, or without ``root`` the user's."""

    root: Path | None = None
    runroot: Path = RUNROOT

    def run(self, *arguments: str, log: Path | None = None) -> str:
        """Run one command and return what it printed.

        Raises:
            BuildError: it failed.
        """
        done = subprocess.run(self.argv(*arguments), capture_output=True, text=True, check=False)
        if log:
            log.write_text(done.stdout + done.stderr)
        if done.returncode != 0:
            raise BuildError(f"buildah {' '.join(arguments[:2])}: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def argv(self, *arguments: str) -> list[str]:
        """The command line of one command."""
        if self.root is None:
            return ["buildah", *arguments]
        store = [f"--root={self.root}", f"--runroot={self.runroot}", "--storage-driver=overlay"]
        return ["buildah", *store, *arguments]

    def image_id(self, name: str) -> str | None:
        """The id of an image, None when there is none of that name."""
        with contextlib.suppress(BuildError):
            inspected = json.loads(self.run("inspect", "--type=image", name))
            return str(inspected["FromImageID"])
        return None


def _store() -> Buildah:
    return Buildah(paths.cache() / "buildah")


def load(wanted: str, images: NodeImages) -> list[str]:
    """Have an image on the node, whatever is meant: an archive, one of ours, one of buildah's.

    Returns:
        the full names of what changed on the node.

    Raises:
        UsageError: it is none of these.
        DevclusterError: it can't be built or read.
    """
    if Path(wanted).is_file():
        with step(f"loading {wanted} onto the node"):
            return images.load(Path(wanted))
    if wanted in names():
        return build_and_load([wanted], images)
    packages.ensure(packages.IMAGES)
    users = Buildah()
    image = users.image_id(wanted)
    if image is None:
        raise UsageError(
            f"{wanted} is neither an archive, nor one of {', '.join(names())}, nor an image in "
            "buildah's store (see `buildah images`)"
        )
    if not images.has(wanted, image):
        with step(f"loading {wanted} onto the node"):
            load_built(wanted, image, images, users)
    return [full_name(wanted)]


def build_and_load(
    wanted: Sequence[str], images: NodeImages, tree: Path = paths.REPOSITORY
) -> list[str]:
    """Build the named images where their sources changed, and have them on the node.

    Args:
        wanted: their names.
        images: those of the node.
        tree: the sources; another state of the project has to have another version.

    Returns:
        their full names.

    Raises:
        UsageError: there is no Dockerfile for a name.
        BuildError: an image does not build.
    """
    for name in wanted:
        if name not in names():
            raise UsageError(f"no images/{name}/Dockerfile: there are {', '.join(names())}")
    packages.ensure(packages.IMAGES)
    loaded = []
    with locks.exclusive("images"):
        for name in wanted:
            image, tagged = _ensure_image(name, tree), tag(name, tree)
            if not images.has(tagged, image):
                with step(f"loading {tagged} onto the node"):
                    load_built(tagged, image, images, _store())
            loaded.append(tagged)
    return loaded


def load_built(name: str, image: str, images: NodeImages, buildah: Buildah) -> None:
    """Bring an image from a store of buildah onto the node, uncompressed on the way."""
    with tempfile.TemporaryDirectory(dir=paths.cache()) as directory:
        archive = Path(directory) / "image.tar"
        buildah.run("push", image, f"docker-archive:{archive}:{full_name(name)}")
        images.load_from(archive, name, image)


def _ensure_image(name: str, tree: Path) -> str:
    """The id of an image that is made of the sources as they are."""
    dockerfile = tree / "images" / name / "Dockerfile"
    text = dockerfile.read_text()
    # An image of one of our programs copies that program; the others copy from the repository.
    of_program = name in build.TOOLS
    context = build.ensure([name])[name].parent if of_program else tree
    base = "" if of_program else _ensure_base()
    key = content_key(text, base, context)
    # Of this tree there is one at a time, of others one for each version.
    own = tree == paths.REPOSITORY
    record = paths.cache() / "images" / f"{name if own else f'{name}-{_version(tree)}'}.json"
    kept = json.loads(record.read_text()) if record.exists() else {}
    buildah = _store()
    if kept.get("key") == key and buildah.image_id(kept["id"]):
        return str(kept["id"])
    image = _build(tag(name, tree), dockerfile, context, base)
    record.parent.mkdir(parents=True, exist_ok=True)
    record.write_text(json.dumps({"key": key, "id": image}))
    if kept and kept["id"] != image:
        # Best effort: it may still be the layer below another image.
        with contextlib.suppress(BuildError):
            buildah.run("rmi", kept["id"])
    return image


def _build(tagged: str, dockerfile: Path, context: Path, base: str) -> str:
    name = dockerfile.parent.name
    log = paths.cache() / "logs" / f"image-{name}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    buildah = _store()
    # What an interrupted build left; nobody else builds now.
    buildah.run("rm", "--all")
    with (
        step(f"building image {tagged}") as update,
        log.open("w") as written,
        host_access() as volumes,
    ):
        arguments = [
            *("build", "--isolation=chroot", "--layers", "--pull-never", "--format=docker"),
            *(f"--build-arg=BASE={base}" if base else "",),
            *(f"--volume={volume}" for volume in (volumes if base else ())),
            *(f"--file={dockerfile}", f"--tag={tagged}", str(context)),
        ]
        argv = [*build.nice(), *buildah.argv(*filter(None, arguments))]
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        ) as process:
            for line in process.stdout or ():
                written.write(line)
                written.flush()
                if line.startswith("STEP"):
                    update(line.strip()[:80])
        if process.returncode != 0:
            raise BuildError(with_log(f"the image {name} does not build", log, lines=20))
    image = buildah.image_id(tagged)
    if image is None:
        raise BuildError(with_log(f"the image {name} is not in the store after its build", log))
    return image


@contextlib.contextmanager
def host_access() -> Iterator[list[str]]:
    """Volumes that let a build fetch packages as the machine does, and leave nothing behind.

    The base has a file at each of these places already, so that no mount point is made.
    """
    homes = [Path("/etc/pip.conf"), Path.home() / ".pip/pip.conf", _user_configuration()]
    if named := os.environ.get("PIP_CONFIG_FILE"):
        homes.append(Path(named))
    contents = [path.read_text() for path in homes if path.is_file()]
    with tempfile.TemporaryDirectory() as directory:
        configuration = Path(directory) / "pip.conf"
        configuration.write_text(pip_configuration(contents, dict(os.environ)))
        volumes = [f"{configuration}:{_PIP_CONFIGURATION}:ro"]
        named = os.environ.get("PIP_CERT") or os.environ.get("SSL_CERT_FILE")
        bundle = Path(named or _CA_BUNDLE)
        if bundle.is_file():
            volumes.append(f"{bundle}:{_CA_BUNDLE}:ro")
        yield volumes


def _user_configuration() -> Path:
    base = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(base) / "pip" / "pip.conf"


def _ensure_base() -> str:
    """The name of the Debian image that the project's images build on; made when missing."""
    suite, listed, sources = _suite(), _listed(), _sources()
    digest = hashlib.sha256(json.dumps([suite, listed, _LEFT_OUT, _LEFT_IN, _FINISH]).encode())
    digest.update(sources.read_bytes() if sources else b"")
    name = f"{_BASE_NAME}:{digest.hexdigest()[:16]}"
    buildah = _store()
    if buildah.image_id(name) is None:
        make_base(name, buildah)
        _forget_other_bases(name)
    return name


def make_base(name: str, buildah: Buildah, *, epoch: int | None = None) -> None:
    """Make the Debian image that the project's images build on.

    Args:
        name: what it is called in the store.
        buildah: the store.
        epoch: seconds since 1970; no file of it is younger, and none depends on when it is made.

    Raises:
        BuildError: it can't be made.
    """
    suite, listed = _suite(), _listed()
    log = paths.cache() / "logs" / "image-base.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with (
        step(f"building the base image: Debian {suite} with {', '.join(listed)}"),
        tempfile.TemporaryDirectory(dir=paths.cache()) as directory,
    ):
        archive = Path(directory) / "base.tar"
        _debootstrap(suite, listed, _sources(), archive, log, epoch=epoch)
        container = buildah.run("from", "--pull-never", "scratch").strip()
        try:
            buildah.run("add", container, str(archive), "/")
            buildah.run("config", "--env=LANG=C.UTF-8", "--cmd=/bin/sh", container)
            buildah.run("commit", "--quiet", "--format=docker", container, name)
        finally:
            buildah.run("rm", container)


def _listed() -> list[str]:
    """The packages of the base, beside those that every Debian has."""
    return (IMAGES / "base" / "packages.txt").read_text().split()


def _forget_other_bases(name: str) -> None:
    """Remove former bases and what was cached on top of them; best effort, for the disk's sake."""
    buildah = _store()
    listed = buildah.run("images", "--format={{.Name}}:{{.Tag}}", "--noheading").split()
    for other in listed:
        if other.startswith(f"{_BASE_NAME}:") and other != name:
            with contextlib.suppress(BuildError):
                buildah.run("rmi", other)
    with contextlib.suppress(BuildError):
        buildah.run("rmi", "--prune")


def _debootstrap(
    suite: str,
    listed: Sequence[str],
    sources: Path | None,
    archive: Path,
    log: Path,
    *,
    epoch: int | None,
) -> None:
    argv = [
        *build.nice(),
        *("mmdebstrap", "--mode=root", "--variant=essential", f"--include={','.join(listed)}"),
        *([f"--hook-dir={_MERGED_USR}"] if _MERGED_USR.is_dir() else []),
        *(f"--dpkgopt=path-exclude={pattern}" for pattern in _LEFT_OUT),
        *(f"--dpkgopt=path-include={pattern}" for pattern in _LEFT_IN),
        *(f"--customize-hook={command}" for command in _FINISH),
        *(suite, str(archive), *([str(sources)] if sources else [])),
    ]
    clamped = {} if epoch is None else {"SOURCE_DATE_EPOCH": str(epoch)}
    environment = {**os.environ, **clamped}
    with log.open("w") as written:
        done = subprocess.run(
            argv,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=written,
            check=False,
        )
    if done.returncode != 0:
        raise BuildError(with_log("mmdebstrap can't make the base image", log))


def _suite() -> str:
    """The Debian release of this machine, such as ``bookworm``."""
    release = Path("/etc/os-release").read_text()
    values = dict(line.split("=", 1) for line in release.splitlines() if "=" in line)
    codename = values.get("VERSION_CODENAME", "").strip('"')
    if not codename:
        raise BuildError("/etc/os-release names no VERSION_CODENAME: images need a Debian machine")
    return codename


def _sources() -> Path | None:
    """The machine's own list of Debian mirrors; None where mmdebstrap's default has to do."""
    directory = Path("/etc/apt")
    for name in ("sources.list.d/debian.sources", "sources.list.d/ubuntu.sources", "sources.list"):
        path = directory / name
        if path.is_file() and path.stat().st_size:
            return path
    return None
