"""Files in deploy/ that other programs read: the Ansible role's configuration is one that bridged accepts."""

from __future__ import annotations

from pathlib import Path

import yaml

from bridged.configuration.load import parse

DEPLOY = Path(__file__).parents[2] / "deploy"


def test_every_file_of_the_ansible_role_is_yaml():
    files = sorted((DEPLOY / "ansible").rglob("*.yml"))
    assert len(files) >= 5
    assert all(yaml.safe_load(file.read_text()) is not None for file in files)


def test_the_playbook_s_example_is_a_valid_configuration():
    (play,) = yaml.safe_load((DEPLOY / "ansible/site.yml").read_text())
    values = play["roles"][0]["vars"]
    configuration = parse(yaml.safe_dump(values["bridged_configuration"]), Path("/etc/bridged/bridged.yaml"))
    tls = configuration.tunnels["branch"].tls
    copied = {f"/etc/bridged/{name}" for name in values["bridged_keys"]}
    assert {tls.ca, tls.certificate, tls.key} <= copied


def test_the_container_file_takes_the_package_and_runs_the_daemon():
    text = (DEPLOY / "container/Containerfile").read_text()
    assert "COPY dist/bridged_*.deb" in text
    assert 'CMD ["run", "--config", "/etc/bridged/bridged.yaml"]' in text
    # The first process of a container inherits orphans: bridged does not wait for them.
    assert (
        'ENTRYPOINT ["tini", "--", "bridged"]' in text
        and "install --yes --no-install-recommends tini" in text
    )
