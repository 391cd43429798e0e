"""The files of folders and archives: junk, links, odd names, and archives that are refused."""

import io
import os
import zipfile

import numpy as np
import pytest
from PIL import Image

from samgan.data.sources import close_sources, open_source, read_entries
from samgan.data.sources.listing import images_in_folder, list_folder, list_zip
from samgan.errors import SamganError, shown


def png(shade=100):
    file = io.BytesIO()
    Image.new("L", (16, 16), shade).save(file, "PNG")
    return file.getvalue()


def write_tree(root, *names):
    for name in names:
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(png())


def write_zip(path, *members, content=None):
    """Members keep their names to the letter."""
    with zipfile.ZipFile(path, "w") as archive:
        for number, name in enumerate(members):
            info = zipfile.ZipInfo("x")
            info.filename = name
            archive.writestr(info, content or png(number))
    return path


def paths(listing):
    return [file.path for file in listing.files]


# junk

SILENT_JUNK = (".DS_Store", "._1.png", "__MACOSX/A/._1.png", "A/__MACOSX/1.png", "Thumbs.db", "A/desktop.ini")
SILENT_JUNK += (".git/1.png",)
SAID_JUNK = ("@eaDir/1.png/THUMB.jpg", "#recycle/1.png", "$RECYCLE.BIN/1.png", "System Volume Information/1.png")
SAID_JUNK += (".cache/1.png", "A/.hidden.png", "A/@eaDir/1.png/THUMB.jpg", "@Recycle/1.png")


@pytest.mark.parametrize("kind", ["folder", "zip"])
@pytest.mark.parametrize("junk", [*SILENT_JUNK, *SAID_JUNK])
def test_junk_is_no_image_and_said_where_a_person_may_miss_it(tmp_path, kind, junk):
    names = ["A/1.png", junk, "notes.txt"]
    if kind == "folder":
        write_tree(tmp_path / "set", *names)
        listing = list_folder(tmp_path / "set")
    else:
        listing = list_zip(write_zip(tmp_path / "set.zip", *names))
    assert paths(listing) == ["A/1.png"]
    assert listing.ignored == {".txt": 1}
    assert len(listing.warnings) == (junk in SAID_JUNK)
    if listing.warnings:
        assert listing.warnings[0].endswith(next(part for part in junk.split("/") if part != "A"))


def test_images_of_one_folder_are_listed_in_order_without_junk_and_sub_folders(tmp_path):
    junk = ("._a.jpg", ".hidden.png", "Thumbs.db", "notes.txt", "sub.png/1.png", "@eaDir/x.png")
    write_tree(tmp_path, "b.PNG", "a.jpg", *junk)
    (tmp_path / "IM1").write_bytes(bytes(128) + b"DICM")
    assert images_in_folder(tmp_path) == [tmp_path / name for name in ("IM1", "a.jpg", "b.PNG")]


# links


def test_a_folder_is_listed_once_under_its_own_name_in_whatever_order_the_disk_has(tmp_path, monkeypatch):
    root = tmp_path / "set"
    write_tree(root, "B/1.png", "C/2.png")
    write_tree(tmp_path, "elsewhere/3.png", "elsewhere/deep/4.png")
    (root / "A").symlink_to(root / "B")  # before B, and no class
    (root / "D").symlink_to(tmp_path / "elsewhere")
    (root / "E").symlink_to(tmp_path / "elsewhere/deep")
    (root / "C/up").symlink_to(root)
    expected = ["B/1.png", "C/2.png", "D/3.png", "D/deep/4.png"]
    said = []
    scandir = os.scandir
    for order in (1, -1):

        class Entries(list):
            def __init__(self, path, order=order):
                super().__init__(sorted(scandir(path), key=lambda entry: entry.name)[::order])

            __enter__ = lambda self: self  # noqa: E731 - what os.scandir gives
            __exit__ = lambda *_: None  # noqa: E731
            __next__ = lambda self: self.pop(0) if self else next(iter(()))  # noqa: E731
            __iter__ = lambda self: self  # noqa: E731

        with monkeypatch.context() as patch:
            patch.setattr(os, "scandir", Entries)
            listing = list_folder(root)
        assert paths(listing) == expected
        said.append(listing.warnings)
    assert said[0] == said[1]
    assert [warning.split()[2] for warning in said[0]] == ["A", "C/up", "E"]
    assert all("leads to a folder that is listed already" in warning for warning in said[0])


def test_a_link_to_a_folder_above_ends(tmp_path):
    write_tree(tmp_path, "outer/set/A/1.png", "outer/2.png")
    (tmp_path / "outer/set/link").symlink_to(tmp_path / "outer")
    assert paths(list_folder(tmp_path / "outer/set")) == ["A/1.png", "link/2.png"]


# odd names


def test_a_folders_names_may_hold_backslashes(tmp_path):
    write_tree(tmp_path, "A\\B/1.png", "C/2.png")
    assert [entry.class_name for entry in open_source(tmp_path).entries] == ["A\\B", "C"]


@pytest.mark.parametrize("names", [["./A//1.png", "B/./2.png"], ["A\\1.png", "B\\2.png"], ["A/1.png", "B//2.png"]])
def test_archive_members_are_read_by_the_names_they_have(tmp_path, names):
    source = open_source(write_zip(tmp_path / "set.zip", *names, "C\\", "D/"))
    assert [entry.path for entry in source.entries] == names
    assert [entry.class_name for entry in source.entries] == ["A", "B"]
    assert list(read_entries(source.path, source.entries)) == [png(0), png(1)]
    close_sources()


def test_a_member_without_a_name_is_left_out(tmp_path):
    listing = list_zip(write_zip(tmp_path / "set.zip", "", "A/1.png", "."))
    assert paths(listing) == ["A/1.png"]
    assert [(file.source, file.reason) for file in listing.unused] == [
        ("(no name)", "a member of the archive without a name")
    ] * 2


def test_names_of_an_unknown_encoding_are_said(tmp_path):
    path = write_zip(tmp_path / "set.zip", "caf\xe9/1.png", "B/2.png")
    data = path.read_bytes().replace("caf\xe9".encode(), b"caf\xe9!")  # neither UTF-8 nor flagged
    data = data.replace(b"\x00\x08", b"\x00\x00")
    path.write_bytes(data)
    listing = list_zip(path)
    assert listing.files[-1].parts[0] == b"caf\xe9!".decode("cp437")
    assert "was read as code page 437" in listing.warnings[0]


def test_the_same_member_twice_counts_once_and_two_of_one_name_are_refused(tmp_path):
    path = write_zip(tmp_path / "same.zip", "A/1.png", "./A//1.png", "B\\2.png", content=png())
    listing = list_zip(path)
    assert paths(listing) == ["A/1.png", "B\\2.png"]
    assert [(file.source, file.reason) for file in listing.unused] == [("./A//1.png", "the archive holds it twice")]
    with pytest.raises(SamganError, match=r"was refused: it holds two different A/1.png: unpack it"):
        list_zip(write_zip(tmp_path / "two.zip", "A/1.png", "A\\1.png"))


def test_an_encrypted_archive_is_refused_with_what_to_do(tmp_path):
    path = write_zip(tmp_path / "set.zip", "A/1.png", "A/2.png")
    data = bytearray(path.read_bytes())
    start = data.rfind(b"PK\x01\x02")
    data[start + 8] |= 1
    path.write_bytes(data)
    with pytest.raises(SamganError, match=r"A/2.png in it is encrypted: unpack it with its password, and give the fol"):
        list_zip(path)


@pytest.mark.parametrize("members", [["A/1\x1b[2J.png", "A\\1\x1b[2J.png"], ["A/../\x1b[2J.png"]])
def test_messages_about_archives_show_control_characters_as_escapes(tmp_path, members):
    with pytest.raises(SamganError, match="was refused") as caught:
        list_zip(write_zip(tmp_path / "set.zip", *members))
    assert str(caught.value).isprintable()
    assert "\\x1b[2J" in str(caught.value)


def test_shown_text_is_printable_and_otherwise_as_it_was():
    assert shown("plain äé大 a\u00a0b\u3000c") == "plain äé大 a\u00a0b\u3000c"
    assert shown("a\x1b[31m\nb\x9b\udce9\u202e\u2028\ud800") == r"a\x1b[31m\nb\x9b\xe9\u202e\u2028\ud800"
    text = "".join(map(chr, np.random.default_rng(0).integers(0, 0x110000, 5000)))
    assert all(character.isprintable() or character.isspace() for character in shown(text))
    assert shown(shown(text)) == shown(text)
