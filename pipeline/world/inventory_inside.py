"""Runs inside an image, with any Python 3 and nothing else: what its package databases name, as one line of JSON."""

from __future__ import annotations

import json
import os
import re
from email.parser import HeaderParser
from pathlib import Path
from typing import Any

NO_PACKAGES = {"proc", "sys", "dev", "run", "tmp", "share"}  # /share: what is mounted
DPKG = ("/var/lib/dpkg/status", "/var/lib/dpkg/status.d")
# Databases of other kinds, by their place.
UNREAD = {
    "/var/lib/rpm": "rpm",
    "/usr/lib/sysimage/rpm": "rpm",
    "/lib/apk/db": "apk",
    "/opt/conda/conda-meta": "conda",
}


def system() -> tuple[str, str]:
    try:
        text = Path("/etc/os-release").read_text("utf-8")
    except OSError:
        return "unknown", "unknown"
    lines = (line.strip().partition("=") for line in text.splitlines() if "=" in line)
    values = {name: value.strip("\"'") for name, _, value in lines}
    return values.get("ID", "unknown"), values.get("VERSION_ID", "unknown")


def debian() -> list[dict[str, Any]]:
    found = []
    for path in dpkg_files():
        entries = Path(path).read_text("utf-8", "replace").split("\n\n")
        for entry in filter(str.strip, entries):
            fields = dict(re.findall(r"^(Package|Version|Architecture|Status): (.*)$", entry, re.M))
            if fields.get("Status", "ok installed").endswith(" installed") and "Version" in fields:
                found.append(
                    {
                        "kind": "deb",
                        "name": fields["Package"],
                        "version": fields["Version"],
                        "architecture": fields.get("Architecture", "all"),
                        "place": path,
                    }
                )
    return found


def dpkg_files() -> list[str]:
    status, folder = map(Path, DPKG)
    more = folder.iterdir() if folder.is_dir() else ()
    single = [path for path in sorted(more) if path.suffix != ".md5sums"]
    return [str(path) for path in (*([status] if status.exists() else []), *single)]


def python() -> list[dict[str, Any]]:
    found = []
    for folder, folders, _ in os.walk("/"):
        if folder == "/":
            folders[:] = [name for name in folders if name not in NO_PACKAGES]
        folders[:] = sorted(name for name in folders if name != "__pycache__")
        for name in folders:
            if name.endswith(".dist-info"):
                found += distribution(f"{folder.rstrip('/')}/{name}")
    return found


def distribution(folder: str) -> list[dict[str, Any]]:
    try:
        text = Path(folder, "METADATA").read_text("utf-8", "replace")
    except OSError:
        return []
    fields = HeaderParser().parsestr(text.partition("\n\n")[0])
    if not fields["Name"] or not fields["Version"]:
        return []
    license_ = fields["License-Expression"] or fields["License"] or ""
    return [
        {
            "kind": "pypi",
            "name": re.sub(r"[-_.]+", "-", fields["Name"]).lower(),
            "version": fields["Version"],
            "license": license_ if "\n" not in license_ and len(license_) <= 80 else "",
            "place": folder,
        }
    ]


def inventory() -> dict[str, Any]:
    name, version = system()
    return {
        "system": name,
        "system_version": version,
        "packages": debian() + python(),
        "unread": sorted({kind for place, kind in UNREAD.items() if Path(place).is_dir()}),
    }


if __name__ == "__main__":
    print(json.dumps(inventory()))
