"""The MSS that a tunnel lets through."""

from __future__ import annotations

from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import ValidationError

from bridged.addresses import Remote
from bridged.configuration.tunnel import Tunnel
from bridged.runtime.client.call_sockets import CallPath, CallSockets
from bridged.runtime.tunnels.mss import TcpSizes, mss_limit, sizes_by_remote


@pytest.mark.parametrize(
    ("mss", "fits_path", "framing", "limit"),
    [
        ("auto", False, "none", 1500 - 48 - 24 - 14 - 40),
        ("auto", False, "comp-lzo", 1500 - 48 - 24 - 1 - 14 - 40),
        ("auto", False, "stub-v2", 1500 - 48 - 24 - 2 - 14 - 40),
        ("auto", False, "auto", 1500 - 48 - 24 - 2 - 14 - 40),
        ("auto", True, "auto", 0),
        ("off", False, "auto", 0),
        ("off", True, "auto", 0),
        (1300, False, "auto", 1300),
        (1300, True, "auto", 1300),
    ],
)
def test_one_limit_holds_for_all_peers_unless_off_or_where_the_data_plane_knows_each_path(
    mss: Any, fits_path: bool, framing: str, limit: int
) -> None:
    tunnel: Any = SimpleNamespace(mss=mss, wan_mtu=1500, compression_framing=framing, fragment=0)
    assert mss_limit(tunnel, fits_path=fits_path) == limit


@pytest.mark.parametrize(("fragment", "packet"), [(1000, 1000), (1452, 1452), (1500, 1452)])
def test_a_full_segment_needs_no_second_packet_where_frames_are_cut(fragment: int, packet: int) -> None:
    tunnel: Any = SimpleNamespace(mss="auto", wan_mtu=1500, compression_framing="none", fragment=fragment)
    assert mss_limit(tunnel) == packet - 24 - 4 - 14 - 40


def test_a_server_with_sizes_of_its_own_has_them_and_the_others_the_tunnel_s() -> None:
    tunnel = Tunnel.model_validate(
        {
            "role": "client",
            "bridge": "br0",
            "tls": {"embedded": True},
            "remotes": ["a", "b:1195/udp4", "c"],
            "remote_sizes": {"b:1195/udp4": {"wan_mtu": 1328}, "c": {"mss": 1200}},
        }
    )
    found = sizes_by_remote(tunnel, fits_path=False)
    limit = 1492 - 48 - 24 - 2 - 14 - 40
    assert found == {
        Remote.parse("a", 1194): TcpSizes(1492, limit),
        Remote.parse("b:1195/udp4"): TcpSizes(1328, limit - 164),
        Remote.parse("c:1194"): TcpSizes(1492, 1200),
    }
    assert sizes_by_remote(tunnel, fits_path=True)[Remote.parse("b:1195/udp4")] == TcpSizes(1328, 0)
    assert sizes_by_remote(tunnel.model_copy(update={"remote_sizes": {}}), fits_path=False) == {}


def test_sizes_of_a_server_that_is_none_of_the_remotes_are_refused() -> None:
    with pytest.raises(ValidationError, match="not in `remotes`"):
        Tunnel.model_validate(
            {
                "role": "client",
                "bridge": "br0",
                "tls": {"embedded": True},
                "remotes": ["a"],
                "remote_sizes": {"b": {"wan_mtu": 1328}},
            }
        )


def test_the_data_plane_gets_the_sizes_of_the_server_that_it_is_handed_over_to() -> None:
    told: list[tuple[str, Any]] = []
    dataplane: Any = SimpleNamespace(
        use_socket=lambda descriptor: told.append(("socket", descriptor)),
        use_sizes=lambda *sizes: told.append(("sizes", sizes)),
    )
    sockets = CallSockets(None, dataplane, lambda *_: None, lambda *_: None, "test")
    for number, sizes in enumerate((TcpSizes(1328, 0), TcpSizes(1492, 0), None)):
        through: Any = SimpleNamespace(lend=lambda number=number: number)
        link: Any = SimpleNamespace(handle=number)
        ended = partial(told.append, ("predecessor", number))
        CallPath(sockets, through, sizes, lambda link, ended=ended: ended()).before_attach(link)
    assert told == [
        *(("predecessor", 0), ("socket", 0), ("sizes", (1328, 0))),
        *(("predecessor", 1), ("socket", 1), ("sizes", (1492, 0))),
        *(("predecessor", 2), ("socket", 2)),
    ]
