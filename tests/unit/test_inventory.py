"""The program that reads an image's package databases from inside, on databases of a test."""

from pathlib import Path

import pytest

from pipeline.world import inventory_inside

STATUS = """\
Package: libc6
Status: install ok installed
Architecture: amd64
Version: 2.36-9
Description: GNU C Library
 Package: not-a-field

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0

Package: never
Status: install ok not-installed
Version: 1.0
"""


def test_dpkg_names_what_is_installed_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    status, folder = tmp_path / "status", tmp_path / "status.d"
    status.write_text(STATUS)
    folder.mkdir()
    (folder / "base").write_text(
        "Package: base-files\nVersion: 12\n"
    )  # as distroless images have it
    (folder / "base.md5sums").write_text("Package: no\nVersion: 0\n")
    monkeypatch.setattr(inventory_inside, "DPKG", (str(status), str(folder)))
    assert [(one["name"], one["version"], one["place"]) for one in inventory_inside.debian()] == [
        ("libc6", "2.36-9", str(status)),
        ("base-files", "12", str(folder / "base")),
    ]


@pytest.mark.parametrize(
    ("licence", "seen"),
    [
        ("License-Expression: MIT\nLicense: ignored", "MIT"),
        ("License: BSD", "BSD"),
        (f"License: {'a whole text ' * 9}", ""),
        ("Summary: none", ""),
    ],
)
def test_a_distribution_has_its_name_version_and_short_licence(
    tmp_path: Path, licence: str, seen: str
) -> None:
    folder = tmp_path / "Flag_Gems-5.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Name: Flag_Gems\nVersion: 5.0\n{licence}\n\nLicense: body\n")
    assert inventory_inside.distribution(str(folder)) == [
        {
            "kind": "pypi",
            "name": "flag-gems",
            "version": "5.0",
            "license": seen,
            "place": str(folder),
        }
    ]


def test_what_is_no_distribution_is_left_out(tmp_path: Path) -> None:
    assert inventory_inside.distribution(str(tmp_path)) == []
    (tmp_path / "METADATA").write_text("Name: half\n\n")
    assert inventory_inside.distribution(str(tmp_path)) == []
