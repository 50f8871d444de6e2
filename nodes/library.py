"""Profiles on disk: the user's in models/omnicache, and the read-only ones that come with the pack."""

import os
import re
import time
import uuid
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

import folder_paths
from comfyui_version import __version__ as host_version

from ..omnicache.profile import MAX_FILE_BYTES, Profile
from ..omnicache.version import __version__

FOLDER = "omnicache"
NONE = "none"
_SUFFIX = ".json"
_SHIPPED = Path(__file__).resolve().parent.parent / "schedules"
_NAME = re.compile(r"[\w][\w .()+-]{0,99}")
_MAX_NAME_BYTES = 200  # file systems allow 255 with the endings
_DEVICE = re.compile(r"con|prn|aux|nul|(com|lpt)[0-9¹²³]", re.IGNORECASE)
_PART = ".part"
_PART_SECONDS = 3600.0  # an older one is no file that is being written


def register() -> None:
    """Tells the host of the folder. The first path is written to: the user's from extra_model_paths.yaml if
    there is one, which the host has read by now, else models/omnicache."""
    folder_paths.add_model_folder_path(FOLDER, os.path.join(folder_paths.models_dir, FOLDER))
    folder_paths.add_model_folder_path(FOLDER, str(_SHIPPED))
    paths, _ = folder_paths.folder_names_and_paths[FOLDER]
    folder_paths.folder_names_and_paths[FOLDER] = (paths, {_SUFFIX})


def names() -> list[str]:
    """What a node's menu offers: NONE, then every saved profile."""
    return [NONE, *folder_paths.get_filename_list(FOLDER)]


def load(name: str) -> Profile:
    """Reads a profile by its name in the menu. Raises ValueError if it is missing or damaged."""
    path = _path_of(name)
    if path is None:
        raise ValueError(
            f"saved_profile: there is no profile {name!r} in {own_folder()}. Pick another one, or "
            "calibrate and save it under this name with Trajectory Calibrator."
        )
    try:
        with open(path, "rb") as file:
            content = file.read(MAX_FILE_BYTES + 1)
    except OSError as error:
        raise ValueError(
            f"saved_profile: {name!r} cannot be read ({error}). Correct that, or pick another one."
        ) from error
    if len(content) > MAX_FILE_BYTES:
        raise ValueError(
            f"saved_profile: {name!r} is larger than {MAX_FILE_BYTES} bytes, which no profile is."
        )
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        raise ValueError(
            f"saved_profile: {name!r} is not text, so it is no profile. Calibrate again, or pick another one."
        ) from None
    return Profile.from_json(text, name)


def fingerprint(name: str) -> str:
    """Changes when the profile of this name does, so that nodes which read it run again."""
    path = _path_of(name)
    if path is None:
        return ""
    facts = os.stat(path)
    return f"{path} {facts.st_mtime_ns} {facts.st_size}"


def _path_of(name: str) -> str | None:
    """Where the profile of this name in the menu is, if there is one."""
    try:
        return folder_paths.get_full_path(FOLDER, name) if name.lower().endswith(_SUFFIX) else None
    except ValueError:  # on Windows, the path of another drive
        return None


def check_name(name: str) -> None:
    """Raises ValueError for a name that save would refuse, so that it can be said before an hour of
    sampling."""
    if not name:
        return
    stem = name.removesuffix(_SUFFIX)
    if not _NAME.fullmatch(stem) or len(stem.encode()) > _MAX_NAME_BYTES:
        raise ValueError(
            f"save_as: {name[:120]!r} cannot be a file name. Use letters, digits, spaces and . ( ) + - _ "
            f"only, without folders, at most 100 of them and {_MAX_NAME_BYTES} bytes; leave it empty to keep "
            "the profile unsaved."
        )
    if _DEVICE.fullmatch(stem.split(".")[0].rstrip()):
        raise ValueError(
            f"save_as: {name!r} is the name of a device on Windows, where no file can have it. Take another "
            "name, or leave it empty to keep the profile unsaved."
        )


def save(profile: Profile, name: str) -> str:
    """Writes a profile into the user's folder, whole or not at all, and returns its path. An older profile of
    that name is kept as .bak."""
    check_name(name)
    path = os.path.join(own_folder(), name.removesuffix(_SUFFIX) + _SUFFIX)
    try:
        _put(profile, path)
    except OSError as error:
        raise ValueError(
            f"save_as: {path} cannot be written ({error}). Free the folder, or leave save_as empty."
        ) from error
    return path


def provenance() -> dict[str, str]:
    """By what a profile is measured now, and when."""
    return {
        "pack": __version__,
        "host": f"ComfyUI {host_version}",
        "date": datetime.now(UTC).date().isoformat(),
    }


def _put(profile: Profile, path: str) -> None:
    folder, content = os.path.dirname(path), profile.to_json().encode("utf-8")
    os.makedirs(folder, exist_ok=True)
    _remove_old_parts(folder)
    if os.path.exists(path):
        # A copy: were it moved away, there would be no profile of this name until the new one is there.
        with open(path, "rb") as older:
            _write(path + ".bak", older.read())
    _write(path, content)


def _write(path: str, content: bytes) -> None:
    """Puts a file in place whole. What a killed writer leaves behind is a .part, which no menu lists."""
    part = f"{path}.{uuid.uuid4().hex[:8]}{_PART}"
    try:
        with open(part, "xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        with suppress(OSError):
            os.remove(part)
        raise


def _remove_old_parts(folder: str) -> None:
    for entry in os.scandir(folder):
        with suppress(OSError):
            if entry.name.endswith(_PART) and time.time() - entry.stat().st_mtime > _PART_SECONDS:
                os.remove(entry.path)


def own_folder() -> str:
    return folder_paths.get_folder_paths(FOLDER)[0]
