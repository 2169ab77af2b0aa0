"""OpenVPN profiles (`.ovpn`): reads a client's profile, and writes one for a client."""

from bridged.profiles.configuration import Trust, render_yaml, to_configuration
from bridged.profiles.export import ClientProfile, serialize_profile
from bridged.profiles.importer import parse_profile
from bridged.profiles.profile import Material, Notice, Profile

__all__ = [
    "ClientProfile",
    "Material",
    "Notice",
    "Profile",
    "Trust",
    "parse_profile",
    "render_yaml",
    "serialize_profile",
    "to_configuration",
]
