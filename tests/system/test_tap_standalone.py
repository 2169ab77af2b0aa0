"""bridged-tap alone: built, installed into an empty environment, and used by programs that have nothing else.

Needs no network.
"""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from tests.lab.namespace import Namespace

pytestmark = pytest.mark.root

PROJECT = Path(__file__).parents[2]
PROGRAM = Path(__file__).with_name("tap_program.py")
SECONDS = 10.0
FRAME = bytes.fromhex("02005e100001 02005e100099 88b5") + bytes(range(46))


def run(*command: str | Path, cwd: Path = PROJECT) -> str:
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=100, check=False)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder with the wheel and the sdist that `make wheel` makes."""
    folder = tmp_path_factory.mktemp("dist")
    run("bash", PROJECT / "scripts/tap_wheel.sh", folder)
    return folder


@pytest.fixture(scope="module")
def python(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment with that wheel and nothing else."""
    environment = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", environment)
    interpreter = environment / "bin" / "python"
    (wheel,) = built.glob("*.whl")
    install = ("install", "--quiet", "--no-index", "--no-deps", "--disable-pip-version-check")
    run(sys.executable, "-m", "pip", "--python", interpreter, *install, wheel)
    return interpreter


def test_the_wheel_has_code_types_and_licence_and_asks_for_nothing(built: Path) -> None:
    (wheel,) = built.glob("bridged_tap-*-py3-none-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
        (metadata,) = (archive.read(name).decode() for name in names if name.endswith("METADATA"))
    assert "bridged_tap/py.typed" in names
    assert {name.split("/")[0].split("-")[0] for name in names} == {"bridged_tap"}
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert "Requires-Dist" not in metadata
    assert "# bridged-tap" in metadata  # the README


def test_the_sdist_has_all_that_a_reader_wants(built: Path) -> None:
    (sdist,) = built.glob("bridged_tap-*.tar.gz")
    with tarfile.open(sdist) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"README.md", "API.md", "LICENSE", "examples/hello.py", "pyproject.toml"} <= names


def test_the_environment_has_the_library_and_no_other_package(python: Path) -> None:
    code = (
        "import sys; before = set(sys.modules); import bridged_tap; "
        "print(bridged_tap.__file__, *sorted({n.split('.')[0] for n in set(sys.modules) - before}))"
    )
    where, *modules = run(python, "-I", "-c", code, cwd=Path("/")).split()
    assert Path(where).is_relative_to(python.parents[1])
    assert set(modules) - {"bridged_tap"} <= sys.stdlib_module_names


def test_another_program_answers_pings_mirrors_frames_and_ends_cleanly(
    python: Path, inside: Namespace
) -> None:
    inside.run("sysctl", "-qw", "net.ipv6.conf.default.disable_ipv6=1")
    program = inside.start(str(python), "-I", str(PROGRAM), "second0", "second1")
    assert program.stdout is not None
    assert program.stdout.readline() == "ready second0 second1 02:00:5e:10:00:01 1400\n"
    answers = inside.run("ping", "-c", "3", "-i", "0.05", "-w", "15", "192.0.2.2")
    assert {"1", "2", "3"} <= set(re.findall(r"icmp_seq=(\d+) ttl", answers)), answers
    with socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x88B5)) as wire:
        wire.bind(("second1", 0x88B5))
        wire.settimeout(SECONDS)
        wire.send(FRAME)
        assert wire.recv(2000) == FRAME[6:12] + FRAME[:6] + FRAME[12:]
    assert program.stdout.readline() == "frame 88b5 60\n"
    third = inside.start(str(python), "-I", str(PROGRAM), "third0", "second1")
    output, _ = third.communicate(timeout=SECONDS)
    assert (output, third.returncode) == (f"locked by {program.pid}\n", 3)
    program.send_signal(signal.SIGTERM)
    output, _ = program.communicate(timeout=SECONDS)
    assert (output, program.returncode) == ("ended\n", 0)
    assert "second" not in inside.run("ip", "-o", "link", "show")


def test_a_type_checker_knows_the_installed_types(python: Path, tmp_path: Path) -> None:
    options = (
        "--strict",
        "--config-file",
        "/dev/null",
        "--cache-dir",
        tmp_path,
        "--python-executable",
        python,
    )
    wrong = tmp_path / "wrong.py"
    wrong.write_text("from bridged_tap import open_tap\nopen_tap('t', mtu='1500').read().nothing\n")
    command = [sys.executable, "-m", "mypy", *options, PROGRAM, wrong]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=100, check=False)
    assert '"str"; expected "int | None"' in done.stdout
    assert '"bytes" has no attribute "nothing"' in done.stdout
    assert "Found 2 errors in 1 file (checked 2 source files)" in done.stdout


def test_the_example_of_the_sdist_answers_a_ping(
    built: Path, python: Path, inside: Namespace, tmp_path: Path
) -> None:
    (sdist,) = built.glob("bridged_tap-*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    (example,) = tmp_path.glob("*/examples/hello.py")
    program = inside.start(str(python), "-I", "-u", str(example), "hello0")
    assert program.stdout is not None
    assert "hello0" in program.stdout.readline()
    inside.run("ip", "address", "add", "192.0.2.1/24", "dev", "hello0")
    assert " 1 received" in inside.run("ping", "-c", "1", "-W", "5", "192.0.2.77")
    program.send_signal(signal.SIGTERM)
    program.communicate(timeout=SECONDS)
    assert program.returncode == 0


def examples() -> list[str]:
    text = (PROJECT / "tap" / "README.md").read_text(encoding="utf-8")
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


@pytest.mark.parametrize("number", range(len(examples())))
def test_every_example_of_the_readme_runs(
    number: int, python: Path, inside: Namespace, tmp_path: Path
) -> None:
    code = examples()[number].replace("/var/lib/mine", str(tmp_path)).replace('"alice"', '"nobody"')
    endless = re.search(r"^ *(async )?for \w+ in (tap|tun|queue):", code, re.MULTILINE)
    script = tmp_path / "example.py"
    script.write_text(code)
    program = inside.start(str(python), "-I", "-u", str(script))
    inside.run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=0", "net.ipv6.conf.default.disable_ipv6=0")
    if not endless:
        output, _ = program.communicate(timeout=SECONDS)
        assert program.returncode == 0, output
        return
    with pytest.raises(subprocess.TimeoutExpired):
        program.communicate(timeout=0.7)
    program.send_signal(signal.SIGTERM)
    output, _ = program.communicate(timeout=SECONDS)
    assert program.returncode == -signal.SIGTERM
    assert "Traceback" not in output
