"""Profiles on disk: damaged files, names that play tricks, and a process that is killed while it writes."""

import json
import os
import signal
import sys
import time

import folder_paths
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from comfyui_omnicache.nodes import library, plot
from comfyui_omnicache.nodes.curvature_scheduler import CurvatureScheduler
from comfyui_omnicache.omnicache.plan import Budget
from comfyui_omnicache.omnicache.schedule import Schedule
from measured import linear_profile

# `make soak` sets it to 10000.
FUZZED_FILES = int(os.environ.get("OMNICACHE_FUZZED_FILES", "500"))

VALID = linear_profile().to_json()


@pytest.fixture(scope="module", autouse=True)
def own_folder(tmp_path_factory):
    """Keeps saved profiles out of the host's models folder."""
    folder = tmp_path_factory.mktemp("omnicache")
    paths = folder_paths.folder_names_and_paths.get("omnicache")
    folder_paths.folder_names_and_paths["omnicache"] = ([str(folder)], {".json"})
    yield folder
    if paths is not None:
        folder_paths.folder_names_and_paths["omnicache"] = paths


@pytest.fixture
def folder(own_folder):
    for path in own_folder.iterdir():
        path.unlink()
    return own_folder


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8)
    | st.sampled_from([0, -1, 1.5, 1e308, 1e-308, -0.0, 10**30, 10**400, "1", "\ud800", "flow", [], {}]),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)  # fmt: skip


def _places(value: object, path: tuple = ()) -> list[tuple]:
    """Every place of a JSON document, by the keys that lead to it."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [path, *(place for key, part in inner for place in _places(part, (*path, key)))]


# Shallow places first: at random nearly all would be numbers deep in the tables.
PLACES = sorted(_places(json.loads(VALID))[1:], key=len)


@st.composite
def changed_documents(draw) -> bytes:
    """A valid profile in which some parts are replaced, removed or repeated."""
    document = json.loads(VALID)
    for _ in range(draw(st.integers(1, 3))):
        depth = draw(st.integers(1, 5))
        *path, key = draw(st.sampled_from([place for place in PLACES if len(place) == depth]))
        owner = document
        try:
            for step in path:
                owner = owner[step]
            kind = draw(st.sampled_from(["replace", "remove", "repeat"]))
            if kind == "replace":
                owner[key] = draw(anything)
            elif kind == "remove":
                del owner[key]
            elif isinstance(owner, list):
                owner.append(owner[key])
        except (KeyError, IndexError, TypeError):
            continue  # an earlier change took the place away
    return json.dumps(document).encode()


@st.composite
def changed_bytes(draw) -> bytes:
    """A valid profile with a piece of it cut out and other bytes put there."""
    text = VALID.encode()
    start = draw(st.integers(0, len(text)))
    end = min(start + draw(st.sampled_from([0, 1, 2, 30, len(text)])), len(text))
    piece = st.binary(max_size=6) | st.sampled_from([b"[" * 5000, b"9" * 5000, b"1e999", b"NaN", b"\xff"])
    return text[:start] + draw(piece) + text[end:]


@pytest.mark.timeout(3600)
@given(st.one_of(changed_documents(), changed_bytes(), anything.map(lambda a: json.dumps(a).encode()),
                 st.binary(max_size=200)))  # fmt: skip
@settings(
    max_examples=FUZZED_FILES, deadline=5000, database=None, derandomize=FUZZED_FILES == 500,
    suppress_health_check=list(HealthCheck),
)  # fmt: skip
def test_a_fuzzed_file_is_a_valid_profile_or_is_refused_by_name(own_folder, content):
    (own_folder / "fuzzed.json").write_bytes(content)
    try:
        profile = library.load("fuzzed.json")
    except ValueError as refusal:
        assert type(refusal) is ValueError and "profile" in str(refusal) and "'fuzzed.json'" in str(refusal)
        assert len(str(refusal)) < 1000
        return
    assert library.Profile.from_json(profile.to_json(), "again").to_json() == profile.to_json()
    for cost in ("reach", "curvature"):
        schedule = Schedule(Budget("reuse ratio", 0.3), cost, profile=profile)
        for sigmas in (np.linspace(1.0, 0.0, 21), np.geomspace(20.0, 0.01, 16)):
            assert sum(schedule.plan_for(sigmas).reused) == round(0.3 * (len(sigmas) - 1))
        json.dumps(plot.payload(profile, schedule), allow_nan=False)


TRICKS = {
    "parent": "../x",
    "deep parent": "a/../../x",
    "absolute": "/tmp/x",
    "drive": "C:\\x",
    "backslash": "..\\x",
    "NUL": "x\0.json",
    "newline": "x\ny",
    "hidden": ".x",
    "home": "~",
    "stream": "x:y",
    "wildcard": "x*",
    "surrogate": "\ud800",
    "right to left": "x\u202egpj",
    "long": "x" * 101,
    "many bytes": "雪" * 100,
    "only the ending": ".json",
    "device": "CON",
    "device with endings": "nul.tar.json",
    "device with a blank": "Com1 .x",
    "printer": "LPT9",
}


@pytest.mark.parametrize("name", TRICKS.values(), ids=TRICKS)
def test_a_name_that_plays_tricks_is_refused_and_nothing_is_written(name, folder):
    before = sorted(os.listdir(folder.parent))
    with pytest.raises(ValueError, match="^save_as: "):
        library.check_name(name)
    with pytest.raises(ValueError, match="^save_as: "):
        library.save(linear_profile(), name)
    assert list(folder.iterdir()) == [] and sorted(os.listdir(folder.parent)) == before


@pytest.mark.parametrize("name", TRICKS.values(), ids=TRICKS)
def test_a_name_that_plays_tricks_is_not_read(name, folder):
    (folder / "mine.txt").write_text(VALID)
    outside = folder.parent / "x"
    outside.write_text(VALID)
    for asked in (name, f"{name}.json", "mine.txt", f"../{outside.name}", str(outside)):
        with pytest.raises(ValueError, match="^saved_profile: there is no profile"):
            CurvatureScheduler.execute(asked, "reuse ratio", 0.5, "reach", 2, 2, 1, "")
    outside.unlink()


@pytest.mark.parametrize(
    "name", ["a", "Überprüfung 雪 (2) v1.0+x_y-z", "console", "com10", "x" * 100, "雪" * 66]
)
def test_a_name_in_any_language_is_saved_and_offered(name, folder):
    assert os.path.basename(library.save(linear_profile(), name)) == f"{name}.json"
    assert f"{name}.json" in library.names()
    assert library.load(f"{name}.json").to_json() == VALID


def test_a_file_that_cannot_be_a_profile_is_refused_by_name(folder):
    (folder / "large.json").write_bytes(b" " * (5 * 1024 * 1024))
    (folder / "latin.json").write_bytes(VALID.replace("flow", "fl\xf6w").encode("latin-1"))
    for name, words in (("large.json", "larger than"), ("latin.json", "is not text")):
        with pytest.raises(ValueError, match=f"saved_profile: '{name}' .*{words}"):
            library.load(name)


def test_saving_again_keeps_the_older_one_as_bak(folder):
    library.save(linear_profile(), "mine")
    library.save(linear_profile(steps=12), "mine")
    assert library.load("mine.json").steps == 12
    assert (folder / "mine.json.bak").read_text(encoding="utf-8") == VALID
    assert library.names() == ["none", "mine.json"]
    mask = os.umask(0)
    os.umask(mask)
    assert (folder / "mine.json").stat().st_mode & 0o777 == 0o666 & ~mask  # as any file of the user


def test_a_write_that_fails_leaves_the_older_one_and_nothing_else(folder, monkeypatch):
    library.save(linear_profile(), "mine")

    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ValueError, match="save_as: .*mine.json cannot be written .*No space left"):
        library.save(linear_profile(steps=12), "mine")
    assert os.listdir(folder) == ["mine.json"] and library.load("mine.json").steps == 10


def test_old_remains_of_killed_writers_are_removed_and_never_offered(folder):
    old, fresh = folder / "a.json.12345678.part", folder / "b.json.12345678.part"
    for path in (old, fresh):
        path.write_text(VALID[:100])
    os.utime(old, (time.time() - 7200,) * 2)
    assert library.names() == ["none"]
    library.save(linear_profile(), "mine")
    assert sorted(os.listdir(folder)) == [fresh.name, "mine.json"]


def save_and_be_killed(at_line: int) -> bool:
    """Saves in a process of its own, which is killed before it executes this line of library.py, counted from
    the call on. False if it came to its end."""
    child = os.fork()
    if child:
        return os.WIFSIGNALED(os.waitpid(child, 0)[1])
    lines = [0]

    def trace(frame, event, argument):
        if frame.f_code.co_filename != library.__file__:
            return None
        if event == "line":
            if lines[0] == at_line:
                os.kill(os.getpid(), signal.SIGKILL)
            lines[0] += 1
        return trace

    sys.settrace(trace)
    library.save(linear_profile(steps=12), "mine")
    os._exit(0)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
def test_a_process_killed_at_any_line_of_saving_leaves_a_whole_profile(folder):
    steps, parts, is_killed = [], 0, True
    while is_killed:
        library.save(linear_profile(), "mine")
        is_killed = save_and_be_killed(at_line=len(steps))
        assert library.names() == ["none", "mine.json"]
        steps.append(library.load("mine.json").steps)
        for path in folder.iterdir():
            if path.suffix == ".bak":
                assert path.read_text(encoding="utf-8") == VALID
            parts += path.suffix == ".part"
            path.unlink()
    assert len(steps) > 20 and steps == sorted(steps)  # the older profile, and from some line on the new one
    assert (steps[0], steps[-1]) == (10, 12)
    assert parts > 5  # some were killed in the middle of a file
