"""What a tunnel's plan says about private files that others may read."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from bridged.configuration import load
from bridged.pki import EmbeddedCa, tls_crypt_key_path
from bridged.runtime.trust import plan_tunnel


@pytest.mark.parametrize(("secret", "key"), [("own.key", "tls.key"), ("wrap.key", "wrap.key")])
def test_a_private_file_that_others_may_read_is_warned_of(tmp_path: Path, secret: str, key: str) -> None:
    authority = EmbeddedCa.create(tmp_path)
    identity = authority.issue("site-b", "client", days=10)
    contents = {
        "ca.crt": authority.certificate_pem,
        "own.crt": identity.certificate_pem,
        "own.key": identity.key_pem,
        "wrap.key": tls_crypt_key_path(tmp_path).read_bytes(),
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        (tmp_path / name).chmod(0o600)
    tls = {"ca": "ca.crt", "certificate": "own.crt", "key": "own.key"}
    tunnel = {
        "role": "client",
        "bridge": "br0",
        "remotes": ["192.0.2.1"],
        "tls": tls,
        "wrap": {"mode": "tls-crypt", "key": "wrap.key"},
    }
    path = tmp_path / "client.yaml"
    path.write_text(yaml.safe_dump({"bridges": {"br0": {}}, "tunnels": {"main": tunnel}}))
    warnings: list[str] = []
    plan_tunnel(load(path), "main", tmp_path, warnings.append)
    assert warnings == []
    (tmp_path / secret).chmod(0o640)
    plan_tunnel(load(path), "main", tmp_path, warnings.append)
    assert len(warnings) == 1
    assert f"tunnels.main.{key}" in warnings[0] and "chmod 600" in warnings[0]
