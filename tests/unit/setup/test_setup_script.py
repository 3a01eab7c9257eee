"""scripts/setup.py: what it decides, and that an interrupted or failed set-up is never taken for a finished one."""

from __future__ import annotations

import importlib.util
import sys
import venv
from dataclasses import replace
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parents[3]


def _load():
    spec = importlib.util.spec_from_file_location("feedmill_setup_script", REPOSITORY / "scripts" / "setup.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


setup = _load()


@pytest.fixture
def places(tmp_path):
    """A repository with the set-up's inputs and nothing else, in a folder with a space in its name."""
    root = tmp_path / "a clone"
    for name in ("build", "torch", "lock", "dev"):
        file = root / "requirements" / f"{name}.txt"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"{name}==1.0\n")
    for folder in setup.DISTRIBUTIONS:
        (root / folder).mkdir(parents=True)
        (root / folder / "pyproject.toml").write_text(f"# {folder}\n")
    return setup.Places(root)


@pytest.fixture
def installed(monkeypatch):
    """Stands in for pip: records what was installed; fails when told to."""
    calls: list[str] = []
    fail: list[bool] = []

    def record(what):
        def install(_places):
            calls.append(what)
            if fail:
                raise setup.SetupError("no network")

        return install

    monkeypatch.setattr(setup, "install_runtime", record("runtime"))
    monkeypatch.setattr(setup, "install_dev", record("dev"))
    return calls, fail


def test_every_input_changes_the_digest(places):
    before = setup.wanted_stamp(places, dev=True)
    for file in (places.requirements("lock"), places.requirements("torch"), places.root / "shared" / "pyproject.toml"):
        file.write_text(file.read_text() + "# changed\n")
        after = setup.wanted_stamp(places, dev=True)
        assert after.runtime != before.runtime
        before = after


def test_development_tools_have_a_digest_of_their_own(places):
    before = setup.wanted_stamp(places, dev=True)
    places.requirements("dev").write_text("pytest==1\n")
    after = setup.wanted_stamp(places, dev=True)
    assert (after.runtime == before.runtime, after.dev == before.dev) == (True, False)
    assert setup.wanted_stamp(places, dev=False).dev is None


def test_ready_means_the_same_inputs(places):
    wanted = setup.wanted_stamp(places, dev=True)
    assert setup.is_ready(wanted, wanted)
    assert setup.is_ready(wanted, replace(wanted, dev=None))  # tools that are there but not asked for do no harm
    assert not setup.is_ready(None, wanted)
    assert not setup.is_ready(replace(wanted, dev=None), wanted)
    for field in ("root", "python", "runtime"):
        assert not setup.is_ready(replace(wanted, **{field: "other"}), wanted)


@pytest.mark.parametrize("text", ["", "{", "[]", "null", '{"root": "x"}', '{"surplus": 1}', "\x00"])
def test_a_torn_stamp_is_no_stamp(places, text):
    places.venv.mkdir()
    places.stamp.write_text(text)
    assert setup.read_stamp(places) is None


def test_set_up_is_done_once(places, installed):
    calls, _ = installed
    setup.set_up(places, dev=False)
    setup.set_up(places, dev=False)
    assert len(calls) == 1
    assert setup.runs(places.python)
    assert not places.unfinished.exists()


def test_development_tools_stay_when_a_plain_set_up_follows(places, installed):
    calls, _ = installed
    setup.set_up(places, dev=True)
    places.requirements("lock").write_text("changed==1\n")
    setup.set_up(places, dev=False)
    setup.set_up(places, dev=True)
    assert calls == ["runtime", "dev", "runtime"]


def test_development_tools_are_added_to_what_is_there(places, installed):
    calls, _ = installed
    setup.set_up(places, dev=False)
    setup.set_up(places, dev=True)
    assert calls == ["runtime", "dev"]


def test_a_failed_set_up_starts_anew(places, installed, capsys):
    calls, fail = installed
    fail.append(True)
    with pytest.raises(setup.SetupError, match="no network"):
        setup.set_up(places, dev=False)
    assert places.unfinished.exists()
    half_made = places.venv / "half-made"
    half_made.touch()
    fail.clear()
    setup.set_up(places, dev=False)
    assert len(calls) == 2
    assert not half_made.exists()
    assert "interrupted" in capsys.readouterr().out


def test_a_failed_update_is_not_taken_for_finished(places, installed):
    calls, fail = installed
    setup.set_up(places, dev=False)
    lock = places.requirements("lock")
    before = lock.read_text()
    lock.write_text("changed==1\n")
    fail.append(True)
    with pytest.raises(setup.SetupError):
        setup.set_up(places, dev=False)
    fail.clear()
    lock.write_text(before)  # the old stamp fits again, but what is installed may not
    setup.set_up(places, dev=False)
    assert len(calls) == 3


def test_a_moved_clone_is_set_up_anew(places, installed, capsys):
    setup.set_up(places, dev=False)
    moved = setup.Places(places.root.rename(places.root.with_name("moved")))
    setup.set_up(moved, dev=False)
    assert "it was made in" in capsys.readouterr().out
    assert setup.read_stamp(moved).root == str(moved.root)


def test_a_venv_without_a_running_python_is_made_anew(places, installed):
    places.python.parent.mkdir(parents=True)
    places.python.write_text("#!/nowhere\n")
    setup.set_up(places, dev=False)
    assert setup.runs(places.python)


def test_a_venv_that_the_user_made_is_built_upon(places, installed):
    venv.create(places.venv, with_pip=False)
    own = places.venv / "mine"
    own.touch()
    setup.set_up(places, dev=False)
    assert own.exists()


def test_the_interpreter_outside_of_a_venv_is_not_enough():
    assert not setup.runs(Path("/nowhere/python"))
    assert not setup.runs(Path(setup.base_python()))


def test_torch_comes_as_the_cpu_build_and_without_an_extra_index():
    local, remote = setup.torch_sources("2.13.0", {}, "linux")
    assert (local.options, local.requirement) == (("--no-index",), "torch==2.13.0+cpu")
    assert (remote.options, remote.requirement) == (("--index-url", setup.TORCH_INDEX), "torch==2.13.0+cpu")
    assert {source.requirement for source in setup.torch_sources("2.13.0", {}, "darwin")} == {"torch==2.13.0"}


def test_the_users_torch_index_is_the_only_one_and_never_shown():
    environ = {"FEEDMILL_TORCH_INDEX": "https://user:secret@example.org/simple"}
    (source,) = setup.torch_sources("2.13.0", environ, "linux")
    assert source.options == ("--index-url", environ["FEEDMILL_TORCH_INDEX"])
    assert "secret" not in source.description


@pytest.mark.parametrize(
    ("text", "accepted"),
    [
        ("__version__ = '2.13.0+cpu'\ncuda: Optional[str] = None\n", True),
        ("cuda = None\n", True),
        ("cuda: Optional[str] = '12.8'\n", False),
        ("__version__ = '2.13.0'\n", False),
        (None, False),
    ],
)
def test_a_torch_for_cuda_is_refused(places, text, accepted):
    folder = places.venv / "lib" / "python3.11" / "site-packages" / "torch"
    folder.mkdir(parents=True)
    if text is not None:
        (folder / "version.py").write_text(text)
    if accepted:
        setup.check_torch(places)
    else:
        with pytest.raises(setup.SetupError, match="expected torch's build for CPUs"):
            setup.check_torch(places)


def test_no_torch_says_what_to_set_and_what_pip_said(places, monkeypatch):
    done = setup.subprocess.CompletedProcess([], 1, "", "ERROR: No matching distribution")
    monkeypatch.setattr(setup, "pip", lambda *_: done)
    monkeypatch.delenv("FEEDMILL_TORCH_INDEX", raising=False)
    places.requirements("torch").write_text("torch==2.13.0\n")
    with pytest.raises(setup.SetupError) as error:
        setup.install_torch(places)
    for part in ("FEEDMILL_TORCH_INDEX", "find-links", setup.TORCH_INDEX, "No matching distribution"):
        assert part in str(error.value)


def test_pip_keeps_the_users_index_but_installs_into_our_venv():
    environ = {"PIP_INDEX_URL": "https://example.org", "PIP_TARGET": "/x", "PIP_USER": "1", "PYTHONPATH": "/y"}
    kept = setup.pip_environment(environ)
    assert kept["PIP_INDEX_URL"] == "https://example.org"
    assert kept["PIP_USER"] == "0"
    assert not {"PIP_TARGET", "PYTHONPATH"} & set(kept)


def test_two_set_ups_take_turns(places):
    refused = pytest.raises(setup.SetupError, match="still running")
    with setup.only_one(places), refused, setup.only_one(places, wait_seconds=0):
        pass
    with setup.only_one(places, wait_seconds=0):
        pass


def test_an_old_python_is_refused_with_a_way_out(monkeypatch, capsys):
    monkeypatch.setattr(setup.sys, "version_info", (3, 10, 4))
    monkeypatch.setattr(setup.sys, "argv", ["setup.py"])
    assert setup.main() == 1
    assert "Python 3.11 or newer is needed" in capsys.readouterr().out
