"""OpenVPN's files: reads clients' profiles, servers' files and OpenWrt's; writes a client's profile."""

from bridged.profiles.configuration import Trust, render_yaml, to_configuration
from bridged.profiles.export import ClientProfile, serialize_profile
from bridged.profiles.importer import Reading, parse_profile, read_file
from bridged.profiles.profile import Material, Notice, Profile
from bridged.profiles.serializing import serialize_tunnel

__all__ = [
    "ClientProfile",
    "Material",
    "Notice",
    "Profile",
    "Reading",
    "Trust",
    "parse_profile",
    "read_file",
    "render_yaml",
    "serialize_profile",
    "serialize_tunnel",
    "to_configuration",
]
