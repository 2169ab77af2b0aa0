"""The Debian package as a file: its content, what Debian's checkers say, and that a build can be repeated."""

from __future__ import annotations

import configparser
import gzip
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from bridged.cli.main import app
from bridged.configuration import load
from bridged.configuration.keys import all_keys
from scripts.deb.__main__ import maintainer_of_the_build
from scripts.deb.package import MAINTAINER
from scripts.deb.targets import PYTHONS
from tests.lab.processes import run
from tests.packaging.conftest import ROOT, build

SITE = "usr/lib/bridged/lib/python3/site-packages"
EXPECTED = (
    "etc/bridged/bridged.yaml",
    "etc/bridged/conf.d",
    "etc/needrestart/conf.d/bridged.conf",
    "usr/bin/bridged",
    "usr/lib/NetworkManager/conf.d/bridged.conf",
    "usr/lib/firewalld/services/bridged.xml",
    "usr/lib/systemd/network/05-bridged.network",
    "usr/lib/systemd/system/bridged.service",
    "usr/lib/systemd/system/bridged@.service",
    "usr/lib/sysusers.d/bridged.conf",
    "usr/lib/tmpfiles.d/bridged.conf",
    "usr/share/bash-completion/completions/bridged",
    "usr/share/bug/bridged",
    "usr/share/doc/bridged/changelog.Debian.gz",
    "usr/share/doc/bridged/copyright",
    "usr/share/doc/bridged/docs/guides/join-two-offices.md",
    "usr/share/doc/bridged/docs/guides/pictures/two-lans.svg",
    "usr/share/doc/bridged/docs/troubleshooting.md",
    "usr/share/doc/bridged/examples/prometheus/bridged.rules.yml",
    "usr/share/doc/bridged/examples/interfaces-ifupdown",
    "usr/share/doc/bridged/examples/netplan-60-bridged.yaml",
    "usr/share/fish/vendor_completions.d/bridged.fish",
    "usr/share/man/man1/bridged.1.gz",
    "usr/share/man/man5/bridged.yaml.5.gz",
    "usr/share/man/man8/bridged.8.gz",
    "usr/share/zsh/vendor-completions/_bridged",
    f"{SITE}/bridged/_native.abi3.so",
)


def manual(package, name: str) -> str:
    path = package.tree / f"usr/share/man/man{name[-1]}/{name}.gz"
    return gzip.decompress(path.read_bytes()).decode()


def test_the_package_has_what_it_must_have_and_everything_belongs_to_root(package):
    listing = run("dpkg-deb", "--contents", str(package.file)).splitlines()
    names = {line.split()[5].removeprefix("./").rstrip("/") for line in listing}
    assert [name for name in EXPECTED if name not in names] == []
    assert {line.split()[1] for line in listing} == {"root/root"}
    compiled = {path.name for path in (package.tree / SITE).rglob("*.so")}
    for python in PYTHONS:
        tag = f"cpython-{python.replace('.', '')}-"
        assert [name for name in compiled if name.startswith("_cffi_backend") and tag in name]
        assert [name for name in compiled if name.startswith("_pydantic_core") and tag in name]


def test_lintian_has_nothing_to_say(package, tmp_path):
    # It must not run as root; the overrides have their reasons in them.
    package.file.chmod(0o644)
    told = subprocess.run(
        ["lintian", "--allow-root", "--fail-on", "error,warning", str(package.file)],
        # It leaves files there.
        env={**os.environ, "TMPDIR": str(tmp_path)},
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert (told.returncode, told.stdout) == (0, ""), told.stdout + told.stderr


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, MAINTAINER),
        ({"DEBFULLNAME": "Ada Byron", "DEBEMAIL": "ada@example.org"}, "Ada Byron <ada@example.org>"),
        ({"MAINTAINER": "Ops <ops@example.org>", "DEBEMAIL": "x@y.org"}, "Ops <ops@example.org>"),
    ],
)
def test_the_maintainer_is_whom_the_build_names(
    environment: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("MAINTAINER", "DEBFULLNAME", "DEBEMAIL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert maintainer_of_the_build() == expected


@pytest.mark.parametrize(
    "text", ["ops@example.org", "Ops <ops>", "Ops <a@b.org>\nX: y", "Ops, Inc <a@b.org>"]
)
def test_what_debian_does_not_take_as_a_maintainer_is_refused(
    text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MAINTAINER", text)
    with pytest.raises(SystemExit, match=r"expected 'Full Name <address@"):
        maintainer_of_the_build()


def test_control_and_changelog_name_the_same_maintainer(package) -> None:
    field = run("dpkg-deb", "--field", str(package.file), "Maintainer").strip()
    entry = (package.tree / "usr/share/doc/bridged/changelog.Debian.gz").read_bytes()
    assert f"\n -- {field}  " in gzip.decompress(entry).decode()


@pytest.mark.parametrize("name", ["bridged.1", "bridged.yaml.5", "bridged.8"])
def test_mandoc_has_nothing_to_say_about_the_manual_pages(package, tmp_path, name):
    page = tmp_path / name
    page.write_text(manual(package, name))
    told = subprocess.run(["mandoc", "-Tlint", str(page)], capture_output=True, encoding="utf-8", check=False)
    # Which other pages are installed here is not the page's matter.
    lines = [line for line in told.stdout.splitlines() if "referenced manual not found" not in line]
    assert lines == []


def test_the_manual_pages_name_every_command_and_every_key(package):
    import typer

    text = run("mandoc", "-Tascii", stdin=manual(package, "bridged.1")).replace("\b", "")
    for name in typer.main.get_command(app).commands:  # type: ignore[attr-defined]
        assert f".Cm {name}" in manual(package, "bridged.1"), name
    assert len(text) > 4000
    page = manual(package, "bridged.yaml.5")
    for key in all_keys():
        assert f".It Ic {key.path.rpartition('.')[2]} :" in page, key.path


def test_a_second_build_gives_the_same_bytes(package, tmp_path):
    other = build(tmp_path / "elsewhere", TZ="Pacific/Auckland", LC_ALL="C", PYTHONHASHSEED="7")
    assert other.file.read_bytes() == package.file.read_bytes()


def test_nothing_in_it_names_a_folder_of_this_machine_and_nothing_is_bytecode(package):
    home = str(Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo"))
    for path in package.tree.rglob("*"):
        assert path.suffix != ".pyc"
        if path.is_file() and not path.is_symlink():
            content = path.read_bytes()
            assert str(ROOT).encode() not in content, path
            # Others have built the compiled modules of the Python packages.
            assert "bridged/_native" not in str(path) or home.encode() not in content, path


def test_the_configuration_that_it_brings_is_valid_and_empty(package):
    configuration = load(package.tree / "etc/bridged/bridged.yaml")
    assert not configuration.bridges and not configuration.tunnels


def test_the_maintainer_scripts_are_right_for_dash(package):
    for name in ("postinst", "prerm", "postrm"):
        script = package.tree / "DEBIAN" / name
        assert "@" not in script.read_text().replace("bridged@", "")
        run("dash", "-n", str(script))


def test_settings_for_other_programs_are_valid_and_meant_for_us(package):
    needrestart = package.tree / "etc/needrestart/conf.d/bridged.conf"
    asks = "our %nrconf; do $ARGV[0]; die $@ if $@; my ($one) = keys %{$nrconf{override_rc}};"
    asks += "print grep { /$one/ } @ARGV"
    units = ("bridged.service", "bridged@lab.service", "abridged.service")
    assert run("perl", "-e", asks, str(needrestart), *units) == "bridged.servicebridged@lab.service"
    service = ElementTree.parse(package.tree / "usr/lib/firewalld/services/bridged.xml").getroot()
    assert [port.attrib for port in service.iter("port")] == [{"protocol": "udp", "port": "1194"}]
    for name in ("lib/NetworkManager/conf.d/bridged.conf", "lib/systemd/network/05-bridged.network"):
        settings = configparser.ConfigParser()
        settings.read(package.tree / "usr" / name)
        assert "tap-*" in " ".join(value for section in settings.values() for value in section.values())


def test_examples_for_hosts_that_own_the_bridge_are_valid(package, tmp_path):
    file = tmp_path / "bridged.yaml"
    file.write_text("tunnels: {}\n")
    (tmp_path / "conf.d").mkdir()
    example = package.tree / "usr/share/doc/bridged/examples/bridge-of-the-host.yaml"
    (tmp_path / "conf.d/bridge.yaml").write_text(example.read_text())
    assert load(file).bridges["br0"].ports == ()
