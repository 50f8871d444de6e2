"""Profiles on disk: the user's in models/omnicache, and the read-only ones that come with the pack."""

import os
import re
import tempfile
from pathlib import Path

import folder_paths

from ..omnicache.profile import MAX_FILE_BYTES, Profile

FOLDER = "omnicache"
NONE = "none"
_SUFFIX = ".json"
_SHIPPED = Path(__file__).resolve().parent.parent / "schedules"
_NAME = re.compile(r"[\w][\w .()+-]{0,99}")


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
    path = folder_paths.get_full_path(FOLDER, name)
    if path is None:
        raise ValueError(
            f"saved_profile: there is no profile {name!r} in {own_folder()}. Pick another one, or "
            "calibrate and save it under this name with TrajectoryCalibrator."
        )
    if os.path.getsize(path) > MAX_FILE_BYTES:
        raise ValueError(
            f"saved_profile: {name!r} is larger than {MAX_FILE_BYTES} bytes, which no profile is."
        )
    with open(path, encoding="utf-8") as file:
        return Profile.from_json(file.read(), name)


def check_name(name: str) -> None:
    """Raises ValueError for a name that save would refuse, so that it can be said before an hour of
    sampling."""
    if name and not _NAME.fullmatch(name.removesuffix(_SUFFIX)):
        raise ValueError(
            f"save_as: {name!r} cannot be a file name. Use letters, digits, spaces and . ( ) + - _ only, "
            "without folders, at most 100 of them; leave it empty to keep the profile unsaved."
        )


def save(profile: Profile, name: str) -> str:
    """Writes a profile into the user's folder, whole or not at all, and returns its path. An older profile of
    that name is kept as .bak."""
    check_name(name)
    folder = own_folder()
    path = os.path.join(folder, name.removesuffix(_SUFFIX) + _SUFFIX)
    try:
        os.makedirs(folder, exist_ok=True)
        handle, partial = tempfile.mkstemp(dir=folder, suffix=".part")
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(profile.to_json())
        if os.path.exists(path):
            os.replace(path, path + ".bak")
        os.replace(partial, path)
    except OSError as error:
        raise ValueError(
            f"save_as: {path} cannot be written ({error}). Free the folder, or leave save_as empty."
        ) from error
    return path


def own_folder() -> str:
    return folder_paths.get_folder_paths(FOLDER)[0]
