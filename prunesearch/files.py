"""Files that appear whole or not at all: written beside their place, then renamed, which is atomic within a folder.

And what their names must be like.
"""

from __future__ import annotations

import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_OF_NETWORKS = (".pt", ".pth", ".bin", ".ckpt", ".tar", ".pkl", ".pt2", ".onnx", ".h5")
_OF_OTHERS = (".db", ".sqlite", ".sqlite3", ".py", ".json", ".toml", ".csv", ".parquet", ".html")
_KINDS = {
    stat.S_IFCHR: "device",
    stat.S_IFBLK: "device",
    stat.S_IFIFO: "pipe (FIFO)",
    stat.S_IFSOCK: "socket",
}


def as_path(path: object) -> Path:
    """A path as the caller gave it.

    Raises:
        TypeError: It is neither text nor a `Path`.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise TypeError(f"Expected a path as text or pathlib.Path, got {type(path).__name__}.")
    return Path(path)


def safetensors_path(path: object) -> Path:
    """The path of a safetensors file that will be written.

    Names by which programs know another format are refused: `torch.load("net.pt")` of a safetensors file says that the
    file is damaged, and advises to let it run code.

    Raises:
        TypeError: It is no path.
        ValueError: Its name ends like that of another format.
    """
    path = as_path(path)
    if path.suffix.lower() in (*_OF_NETWORKS, *_OF_OTHERS):
        raise ValueError(
            f"Expected a name that ends in .safetensors, the format of the file, such as {path.stem}.safetensors; got "
            f"{path.name}, which other programs would read as another format."
        )
    return path


def same_file(one: Path, other: Path) -> bool:
    """Whether two paths lead to one file, which need not be there yet."""
    return os.path.realpath(one) == os.path.realpath(other) or (
        one.exists() and other.exists() and os.path.samefile(one, other)
    )


def check_folder(option: str, folder: Path) -> None:
    """Find out at once whether a folder can be made where an option says.

    Raises:
        ValueError: A file is in the way.
    """
    folder = Path(folder)
    if (folder.exists() or folder.is_symlink()) and not folder.is_dir():
        raise ValueError(f"Expected {option} as a folder; {folder} is a file. Name another.")


def check_is_writable_file(path: Path) -> None:
    """Make sure that a path is, or can become, an ordinary file: devices and pipes would be replaced by one.

    Raises:
        OSError: It cannot be looked at, as a link to itself.
        ValueError: It is something else.
    """
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):  # it will be said when it is written
        return
    except OSError as error:  # a link to itself, say
        raise _named(error, path) from error
    if stat.S_ISDIR(mode):
        raise ValueError(f"{path} is a folder; expected a file to write, such as {path / 'name'}.")
    if not stat.S_ISREG(mode):
        raise ValueError(f"{path} is a {_KINDS.get(stat.S_IFMT(mode), 'special file')}; expected a file to write.")


@contextmanager
def whole(path: Path) -> Iterator[Path]:
    """Give a draft to write to, of the same suffix; it replaces the file at the end, and is gone after an error.

    Links are followed: what they point to is replaced. It is on the disk when this returns. An existing file keeps its
    permissions, a new one gets those of any new file.

    Raises:
        OSError: It cannot be written; the error names the file, not the draft.
        ValueError: It is a folder, a device or a pipe.
    """
    check_is_writable_file(path)
    place = Path(os.path.realpath(path))
    draft = place.with_name(f"{_draft_prefix(place)}{secrets.token_hex(8)}{place.suffix}")
    with _naming(path):
        os.close(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))  # nobody else's, whatever its name
        mode = _mode_of(place) or _mode_of(draft)
    try:
        try:
            yield draft
        except OSError as error:
            raise _named(error, path) from error
        with _naming(path):
            _sync(draft)
            _give_to_owner_of(place, draft)
            os.chmod(draft, mode)  # some libraries write files that are for their owner alone
            os.replace(draft, place)
            _sync_folder(place.parent)
    finally:
        with suppress(OSError):
            draft.unlink(missing_ok=True)


@contextmanager
def _naming(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _named(error, path) from error


def _named(error: OSError, path: Path) -> OSError:
    """The same error about the file that was meant."""
    return OSError(error.errno or errno.EIO, error.strerror or str(error), str(path))


def _mode_of(path: Path) -> int:
    """Its permissions; 0 if it is not there."""
    try:
        return stat.S_IMODE(os.stat(path).st_mode)
    except OSError:
        return 0


def _give_to_owner_of(path: Path, draft: Path) -> None:
    """Let a file that replaces another belong to the same user and group, if we may."""
    with suppress(OSError, AttributeError):  # Windows has no such owners
        there, mine = os.stat(path), os.stat(draft)
        if (there.st_uid, there.st_gid) != (mine.st_uid, mine.st_gid):
            os.chown(draft, there.st_uid, there.st_gid)


def _sync(path: Path) -> None:
    """Wait until a file is on the disk: a rename may get there before what was written."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # which opens no folders
        return
    try:
        descriptor = os.open(folder, os.O_RDONLY)
    except PermissionError:  # one may write into a folder that one may not list
        return
    try:
        os.fsync(descriptor)
    except OSError as error:  # some file systems, such as FUSE, know no such thing
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):
            raise
    finally:
        os.close(descriptor)


def _draft_prefix(path: Path) -> str:
    """How the names of a file's drafts begin; short, as a file's name may be as long as one can be."""
    return f".draft-{hashlib.sha256(path.name.encode('utf-8', 'surrogateescape')).hexdigest()[:16]}-"


def write_bytes(path: Path, content: bytes) -> None:
    """Write bytes, whole or not at all; an existing file is replaced."""
    with whole(path) as draft:
        draft.write_bytes(content)


def write_text(path: Path, text: str, *, errors: str = "strict") -> None:
    """Write a text in UTF-8, whole or not at all.

    Args:
        path: The file; an existing one is replaced.
        text: What it will hold.
        errors: What becomes of characters that UTF-8 does not have, as in `str.encode`.
    """
    with whole(path) as draft:
        draft.write_text(text, encoding="utf-8", errors=errors)


def remove_drafts(path: Path) -> None:
    """Remove what kills in the middle of writes left beside a file; only for who alone writes it."""
    place = Path(os.path.realpath(path))
    for left in place.parent.glob(f"{_draft_prefix(place)}*"):
        left.unlink(missing_ok=True)
