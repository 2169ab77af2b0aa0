"""The Ansible role, run for real with its example `site.yml` on a Debian in which systemd is process 1."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from tests.appliance.container import Container
from tests.lab.pki import Authority, static_key
from tests.lab.processes import run
from tests.packaging.conftest import ROOT, Package

pytestmark = pytest.mark.root

PLAYBOOK = Path(sys.prefix).parent / "build/ansible/bin/ansible-playbook"
"""`make test-ansible` installs it; the container sees this machine's files."""
RECAP = re.compile(r"^office +: ok=(\d+) +changed=(\d+) +unreachable=0 +failed=(\d+)", re.MULTILINE)


@dataclass(slots=True)
class Play:
    """A copy of deploy/ansible inside the container."""

    host: Container
    folder: Path

    def run(self, *, fails: bool = False, **more: object) -> tuple[int, str]:
        """How many tasks changed something, and all that was printed."""
        extra = self.folder / "extra.yml"
        self.host.run(f"cat > {extra} <<'END'\n{yaml.safe_dump(more)}END")
        inventory = "office, --connection local --extra-vars ansible_python_interpreter=/usr/bin/python3"
        status, said = self.host.call(
            f"cd {self.folder} && HOME=/root ANSIBLE_NOCOLOR=1 {PLAYBOOK} site.yml --inventory {inventory} "
            f"--extra-vars @{extra}"
        )
        assert (status != 0) == fails, said
        (recap,) = RECAP.findall(said)
        assert (int(recap[2]) > 0) == fails, said
        return int(recap[1]), said


@pytest.fixture(scope="module")
def play(package: Package, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Play]:
    assert PLAYBOOK.exists(), "run `make test-ansible`"
    tree = tmp_path_factory.mktemp("tree")
    shutil.copytree(ROOT / "deploy/ansible", tree / "deploy/ansible")
    (tree / "dist").mkdir()
    shutil.copy2(package.file, tree / "dist")
    keys = tree / "deploy/ansible/keys"
    keys.mkdir()
    authority = Authority("CA")
    authority.issue("branch", "client").write(keys)
    (keys / "ca.crt").write_text(authority.certificate)
    (keys / "tls-crypt.key").write_text(static_key())
    archive = tree / "tree.tar"
    run("tar", "-C", str(tree), "-cf", str(archive), "deploy", "dist")
    with Container((archive,)) as host:
        host.run("mkdir -p /tree && tar -C /tree -xf /run/lab/tree.tar")
        host.run("echo no-triggers > /etc/dpkg/dpkg.cfg.d/lab")
        host.run("ip link add eth1 type veth peer name eth1-x; ip link set eth1 up; ip link set eth1-x up")
        yield Play(host, Path("/tree/deploy/ansible"))


def configuration(**tunnel: object) -> dict[str, object]:
    """That of site.yml, with changes."""
    (page,) = yaml.safe_load((ROOT / "deploy/ansible/site.yml").read_text(encoding="utf-8"))
    found: dict[str, dict[str, dict[str, object]]] = page["roles"][0]["vars"]["bridged_configuration"]
    found["tunnels"]["branch"].update(tunnel)
    return {"bridged_configuration": found}


def test_the_role_makes_a_branch_office_and_a_second_run_changes_nothing(play: Play) -> None:
    changed, said = play.run()
    assert changed >= 4, said
    assert play.host.run("systemctl is-active bridged; systemctl is-enabled bridged").split() == [
        "active",
        "enabled",
    ]
    modes = play.host.run("stat -c '%a %U:%G %n' /etc/bridged/*.key /etc/bridged/conf.d/*")
    assert modes.splitlines() == [
        "640 root:bridged /etc/bridged/branch.key",
        "640 root:bridged /etc/bridged/tls-crypt.key",
        "640 root:bridged /etc/bridged/conf.d/50-ansible.yaml",
    ]
    assert "tunnel branch: client" in play.host.run("bridged status")
    changed, said = play.run()
    assert changed == 0, said


def test_a_change_is_reloaded_and_only_a_change(play: Play) -> None:
    pid = play.host.run("systemctl show --property MainPID bridged")
    changed, said = play.run(**configuration(mtu=1400))
    assert changed == 2, said
    assert "mtu: 1400" in play.host.run("bridged show-config")
    assert "tunnel_started" in play.host.run("journalctl -u bridged --no-pager | tail -20")
    assert play.host.run("systemctl show --property MainPID bridged") == pid
    assert play.run(**configuration(mtu=1400))[0] == 0


def test_a_wrong_configuration_stops_the_play_and_the_daemon_goes_on(play: Play) -> None:
    _, said = play.run(fails=True, **configuration(mtu=9))
    assert "tunnels.branch.mtu" in said
    assert "tunnel branch: client" in play.host.run("bridged status")
    changed, said = play.run(**configuration(mtu=1400))
    assert changed == 2, said
    assert "applied" in play.host.run("bridged reload")


def test_a_host_without_tunnels_may_be_disabled(play: Play) -> None:
    play.run(bridged_configuration={}, bridged_keys={}, bridged_enabled=False)
    assert play.host.call("systemctl is-active bridged")[1] == "inactive\n"
    assert play.host.call("ls /etc/bridged/conf.d")[1] == ""
    assert play.run(bridged_configuration={}, bridged_keys={}, bridged_enabled=False)[0] == 0
