"""The lab: network namespaces that stand for two or more sites, with real programs in them.

    from tests.lab import Lab, TwoSites, openvpn_pair

    with Lab("mytest") as lab:
        sites = TwoSites(lab)
        openvpn_pair(sites.a, sites.b)
        sites.a.host.ping(sites.b.host.ipv4)

Everything is removed when the `with` ends, and it is checked that nothing is left.
"""

from tests.lab.bridged_daemon import BRIDGED, Bridged, bridged_pair, status_of
from tests.lab.core import Interrupted, Lab, missing_capabilities, require_capabilities
from tests.lab.namespace import Namespace
from tests.lab.openvpn import CIPHERS, OpenVpn, Profile, openvpn_pair, openvpn_version, write_profile
from tests.lab.pki import Authority, Identity, static_key
from tests.lab.processes import CommandError, Process, run
from tests.lab.topology import HOST_PORT, LAN_PORT, WAN_PORT, Host, Hub, Site, Topology, TwoSites, capture
from tests.lab.waiting import LabError, wait_for

__all__ = [
    "BRIDGED",
    "CIPHERS",
    "HOST_PORT",
    "LAN_PORT",
    "WAN_PORT",
    "Authority",
    "Bridged",
    "CommandError",
    "Host",
    "Hub",
    "Identity",
    "Interrupted",
    "Lab",
    "LabError",
    "Namespace",
    "OpenVpn",
    "Process",
    "Profile",
    "Site",
    "Topology",
    "TwoSites",
    "bridged_pair",
    "capture",
    "missing_capabilities",
    "openvpn_pair",
    "openvpn_version",
    "require_capabilities",
    "run",
    "static_key",
    "status_of",
    "wait_for",
    "write_profile",
]
