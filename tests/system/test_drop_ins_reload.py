"""A running daemon follows its drop-ins: a reload sees files that came and went."""

from __future__ import annotations

import pytest

from tests.lab import Bridged, CommandError, Lab, TwoSites, wait_for

pytestmark = pytest.mark.root


def test_a_reload_sees_drop_ins_that_came_changed_and_went() -> None:
    with Lab("dropins") as lab:
        sites = TwoSites(lab, bridges=False)
        daemon = Bridged(sites.a, {"bridges": {}, "tunnels": {}})
        daemon.start()
        folder = daemon.file.with_suffix(".d")
        folder.mkdir()
        extra = folder / "10-lan.yaml"

        def bridges() -> set[str]:
            return {bridge["name"] for bridge in daemon.status()["bridges"]}

        wait_for(lambda: daemon.status() is not None, "the daemon")
        assert bridges() == set()
        extra.write_text("bridges:\n  brx: {}\n")
        assert daemon.reload() == "applied" and bridges() == {"brx"}
        extra.write_text("bridges:\n  brx:\n    mtu: tiny\n")
        with pytest.raises(CommandError, match=rf"{extra}:3: bridges.brx.mtu: "):
            daemon.reload()
        assert bridges() == {"brx"}
        extra.unlink()
        daemon.reload()
        assert bridges() == set() and "brx" not in sites.a.namespace.ip("link")
        assert daemon.stop() == 0
