"""Plugin files, and error messages of broken ones."""

import sys
from pathlib import Path

import pytest
from plugin_files import Write, error_message, writer

from tokbench import create, registry


@pytest.fixture
def write(tmp_path: Path) -> Write:
    return writer(tmp_path)


# Plugin files


def test_files_and_folders_are_loaded_by_path(write: Write):
    alone = write("alone.py", "alone")
    write("folder/one.py", "one")
    write("folder/two.py", "two")
    classes, broken = registry.discover([alone, alone.parent / "folder"])
    assert {"alone", "one", "two", "token_pooling"} <= set(classes)
    assert broken == ()
    assert create("one", ratio="0.25").ratio == 0.25
    assert registry.source_file(classes["one"]) == str((alone.parent / "folder" / "one.py").resolve())


def test_private_and_other_files_are_skipped(write: Write, tmp_path: Path):
    write("_private.py", "private", more="raise RuntimeError")
    write("notes.txt", more="no Python")
    write("deeper/inside.py", "inside")
    write("fine.py", "fine")
    classes, broken = registry.discover([tmp_path])
    assert broken == ()
    assert "fine" in classes
    assert not {"private", "inside"} & set(classes)


def test_a_file_given_twice_is_loaded_once(write: Write, tmp_path: Path):
    file = write(
        "real/counted.py", "counted", more="import builtins\nbuiltins.loads = getattr(builtins, 'loads', 0) + 1\n"
    )
    link = tmp_path / "link.py"
    link.symlink_to(file)
    folder = tmp_path / "folder"
    folder.symlink_to(file.parent, target_is_directory=True)
    import builtins

    try:
        for _ in range(2):
            classes, broken = registry.discover([file, link, file.parent, folder, file.parent / ".." / "real"])
            assert "counted" in classes
            assert broken == ()
        assert builtins.loads == 1
    finally:
        del builtins.loads


def test_two_files_with_the_same_name_are_two_plugins(write: Write):
    paths = [write("a/method.py", "first"), write("b/method.py", "second")]
    classes, broken = registry.discover(paths)
    assert {"first", "second"} <= set(classes)
    assert broken == ()


def test_a_path_that_does_not_exist_is_a_user_error(tmp_path: Path):
    assert "nowhere.py" in error_message(registry.discover, [tmp_path / "nowhere.py"])


# Broken files


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("import no_such_module_anywhere", "ModuleNotFoundError: No module named 'no_such_module_anywhere'"),
        ("def f(:", "SyntaxError"),
        ("raise RuntimeError('first line\\nsecond line')", "RuntimeError: first line"),
        ("import sys\nsys.exit(3)", "SystemExit: 3"),
        ("raise ValueError", "ValueError"),
    ],
)
def test_a_broken_file_affects_only_its_own_methods(write: Write, tmp_path: Path, code: str, reason: str):
    write("a_fine.py", "fine_before")
    bad = write("b_bad.py", "half_done", more=code) if "def f(" not in code else write("b_bad.py", more=code)
    write("c_fine.py", "fine_after")
    for _ in range(2):  # the second call gives the same result
        classes, broken = registry.discover([tmp_path])
        assert {"fine_before", "fine_after", "token_pooling"} <= set(classes)
        assert "half_done" not in classes
        (only,) = broken
        assert Path(only.source) == bad
        assert only.reason.startswith(reason)
        assert len(only.reason.splitlines()) == 1
    assert not [name for name in sys.modules if "b_bad" in name]


def test_a_fixed_file_is_loaded(write: Write):
    file = write("fixed.py", "fixed", more="raise RuntimeError")
    assert registry.discover([file])[1]
    write("fixed.py", "fixed")
    classes, broken = registry.discover([file])
    assert "fixed" in classes
    assert broken == ()


def test_a_broken_entry_point_is_reported_and_others_are_loaded(write: Write, tmp_path: Path, monkeypatch):
    write("site/good_plugin_of_a_test.py", "from_entry_point")
    write("site/bad_plugin_of_a_test.py", "lost", more="raise RuntimeError('no')")
    info = tmp_path / "site" / "plugin_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[tokbench.methods]\ngood = good_plugin_of_a_test\nbad = bad_plugin_of_a_test\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    try:
        classes, broken = registry.discover()
        assert "from_entry_point" in classes
        assert "lost" not in classes
        assert [(one.source, one.reason) for one in broken] == [("bad = bad_plugin_of_a_test", "RuntimeError: no")]
    finally:
        sys.modules.pop("good_plugin_of_a_test", None)


def test_the_error_for_an_unknown_method_names_broken_plugins(write: Write, tmp_path: Path, monkeypatch):
    write("site/bad_plugin_of_a_test.py", "lost", more="raise RuntimeError('no\\nreason')")
    info = tmp_path / "site" / "plugin_of_a_test-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: plugin-of-a-test\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[tokbench.methods]\nbad = bad_plugin_of_a_test\n")
    monkeypatch.syspath_prepend(str(tmp_path / "site"))
    assert "bad_plugin_of_a_test could not be imported: RuntimeError: no" in error_message(create, "lost")


# Duplicate names


def test_the_error_for_a_duplicate_name_gives_both_files(write: Write):
    first, second = write("first.py", "shared"), write("second.py", "shared")
    with pytest.raises(registry.NameTakenError) as caught:
        registry.discover([first, second])
    message = str(caught.value)
    assert "'shared'" in message
    assert str(first.resolve()) in message
    assert str(second.resolve()) in message
    assert len(message.splitlines()) == 1
    assert registry.source_file(registry.method_class("shared")) == str(first.resolve())


def test_a_built_in_name_cannot_be_used(write: Write):
    mine = write("mine.py", "token_pooling")
    with pytest.raises(registry.NameTakenError) as caught:
        registry.discover([mine])
    assert str(mine.resolve()) in str(caught.value)
    assert "token_pooling.py" in str(caught.value)
    assert registry.method_class("token_pooling").__name__ == "TokenPooling"


# The digest of the source


def test_the_digest_changes_with_the_file(write: Write):
    file = write("digested.py", "digested")
    classes, _ = registry.discover([file])
    before = registry.source_digest(classes["digested"])
    assert registry.source_digest(classes["digested"]) == before
    file.write_text(file.read_text() + "\n# changed\n")
    assert registry.source_digest(classes["digested"]) != before
    assert before != registry.source_digest(classes["token_pooling"])


def test_a_value_error_of_the_constructor_is_a_user_error(write: Write):
    registry.discover([write("strict.py", "strict")])
    assert error_message(create, "strict", ratio=-1) == "method 'strict': ratio=-1.0: at least 0"
