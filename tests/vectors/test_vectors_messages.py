"""What went through the TLS sessions of the captures: key messages, options, push replies, exit."""

from __future__ import annotations

from typing import Any

import pytest

from bridged.protocol.keys.cipher import DEFAULT_CIPHERS, Cipher
from bridged.protocol.keys.key_derivation import derive_by_prf
from bridged.protocol.keys.key_exchange import (
    ClientKeyMessage,
    ServerKeyMessage,
    parse_client_key_message,
    parse_server_key_message,
    serialize_client_key_message,
    serialize_server_key_message,
)
from bridged.protocol.packets.messages import (
    AuthFailed,
    Exit,
    PushReply,
    PushRequest,
    parse_message,
    serialize_message,
    split_messages,
)
from bridged.protocol.packets.negotiation import (
    PeerInfo,
    ProtocolFlags,
    accept_pushed_cipher,
    choose_cipher_for_client,
)
from bridged.protocol.packets.options_string import LinkOptions, build_options_string, compare_options
from bridged.protocol.packets.push import (
    PushedOptions,
    PushReplyAssembler,
    parse_pushed_options,
    serialize_push_reply,
)
from bridged.protocol.role import Role
from tests.vectors.vector_files import SCENARIOS, load

# Nothing goes through TLS with a static key.
WITHOUT_TLS = {"a07-static-key-aes256cbc"}
TLS_SCENARIOS = [name for name in SCENARIOS if name not in WITHOUT_TLS]
P2P = {"a14-p2p-tls", "a16-p2p-tls-data-v1-prf"}
PULLING = [name for name in TLS_SCENARIOS if name not in P2P]
CBC = {"a05-tlsauth-sha256-aes256cbc"}

LINK_OPTIONS: dict[str, LinkOptions] = {
    "a01-tlscrypt-aes256gcm": LinkOptions(Role.CLIENT),
    "a02-tlsauth-sha1-aes128gcm-prf": LinkOptions(Role.CLIENT, tls_auth=True, key_direction=1),
    "a03-plain-chacha20": LinkOptions(Role.CLIENT),
    "a04-tcp-tlscryptv2-aes256gcm": LinkOptions(Role.CLIENT, tcp=True),
    "a05-tlsauth-sha256-aes256cbc": LinkOptions(Role.CLIENT, digest="SHA256", tls_auth=True),
    "a06-fragment-aes256gcm": LinkOptions(Role.CLIENT, fragment=True),
    "a08-userpass-authtoken": LinkOptions(Role.CLIENT),
    "a09-loss-20-percent": LinkOptions(Role.CLIENT),
    "a10-comp-lzo-no": LinkOptions(Role.CLIENT, compression=True, compression_octet=True),
    "a11-compress-stub-v2": LinkOptions(Role.CLIENT, compression=True),
    "a12-aead-epoch": LinkOptions(Role.CLIENT),
    "a13-compress-stub": LinkOptions(Role.CLIENT, compression=True, compression_octet=True),
    "a14-p2p-tls": LinkOptions(
        Role.CLIENT, tls_auth=True, key_direction=1, digest="SHA256", legacy_cipher=Cipher.AES_256_GCM
    ),
    "a15-key-id-wrap": LinkOptions(Role.CLIENT),
    "a16-p2p-tls-data-v1-prf": LinkOptions(Role.CLIENT, legacy_cipher=Cipher.AES_256_GCM),
}
# 2.5 announces 32 bytes more for TAP; we compare with it, we do not build it.
BUILT_BY_2_5 = {("a02-tlsauth-sha1-aes128gcm-prf", "client"), ("a16-p2p-tls-data-v1-prf", "client")}


def key_messages(scenario: str, role: Role) -> list[dict[str, Any]]:
    return [
        message
        for message in load(scenario, "messages")
        if "key_method_2" in message and message["direction"].startswith(role.value)
    ]


def texts(scenario: str, role: Role) -> list[str]:
    found: list[str] = []
    for message in load(scenario, "messages"):
        if "text" in message and message["direction"].startswith(role.value):
            pieces = split_messages(bytes.fromhex(message["bytes"]))
            assert pieces == [message["text"]]
            found += pieces
    return found


def test_every_scenario_of_the_folder_is_accounted_for() -> None:
    assert set(LINK_OPTIONS) == set(TLS_SCENARIOS)
    assert set(TLS_SCENARIOS) | WITHOUT_TLS == set(SCENARIOS)


@pytest.mark.parametrize("scenario", TLS_SCENARIOS)
def test_key_messages_parse_and_serialize_to_the_same_octets(scenario: str) -> None:
    for message in key_messages(scenario, Role.CLIENT):
        data = bytes.fromhex(message["bytes"])
        client = parse_client_key_message(data)
        assert_fields(client, message["key_method_2"])
        assert client.pre_master.hex() == message["key_method_2"]["pre_master"]
        assert serialize_client_key_message(client) == data
        assert not client.has_overlong_credentials
    for message in key_messages(scenario, Role.SERVER):
        data = bytes.fromhex(message["bytes"])
        server = parse_server_key_message(data)
        assert_fields(server, message["key_method_2"])
        assert serialize_server_key_message(server) == data
    assert key_messages(scenario, Role.CLIENT) and key_messages(scenario, Role.SERVER)


def assert_fields(message: ClientKeyMessage | ServerKeyMessage, fields: dict[str, Any]) -> None:
    for name in ("random1", "random2"):
        assert getattr(message, name).hex() == fields[name]
    for name in ("options", "username", "password", "peer_info"):
        assert getattr(message, name) == fields[name]


@pytest.mark.parametrize("scenario", ["a02-tlsauth-sha1-aes128gcm-prf", "a16-p2p-tls-data-v1-prf"])
def test_prf_makes_the_key_material_from_the_key_messages(scenario: str) -> None:
    for state in load(scenario, "secrets")["key_states"]:
        assert state["derivation"] == "prf"
        client, server = (
            next(
                bytes.fromhex(message["bytes"])
                for message in key_messages(scenario, role)
                if message["key_id"] == state["key_id"]
                and message["client_session_id"] == state["client_session_id"]
            )
            for role in (Role.CLIENT, Role.SERVER)
        )
        material = derive_by_prf(
            parse_client_key_message(client),
            parse_server_key_message(server),
            bytes.fromhex(state["client_session_id"]),
            bytes.fromhex(state["server_session_id"]),
        )
        assert material.hex() == state["key2"]


@pytest.mark.parametrize("scenario", TLS_SCENARIOS)
def test_options_strings_are_built_as_openvpn_builds_them(scenario: str) -> None:
    ours = LINK_OPTIONS[scenario]
    for role, options in ((Role.CLIENT, ours), (Role.SERVER, ours.mirrored())):
        for message in key_messages(scenario, role):
            sent = message["key_method_2"]["options"]
            if (scenario, role.value) in BUILT_BY_2_5:
                assert "tun-mtu 1532" in sent
            else:
                assert build_options_string(options) == sent
            assert compare_options(build_options_string(options), sent) == []


@pytest.mark.parametrize("scenario", TLS_SCENARIOS)
def test_peer_info_parses_and_serializes_to_the_same_text(scenario: str) -> None:
    for role in Role:
        for message in key_messages(scenario, role):
            text = message["key_method_2"]["peer_info"]
            assert PeerInfo.parse(text).serialize() == text


def test_protocol_flags_of_the_known_versions() -> None:
    def announced(scenario: str) -> int:
        return int(
            PeerInfo.parse(key_messages(scenario, Role.CLIENT)[0]["key_method_2"]["peer_info"]).protocol
        )

    flags = ProtocolFlags
    pulling_2_6 = (
        flags.DATA_V2
        | flags.REQUEST_PUSH
        | flags.TLS_KEY_EXPORT
        | flags.AUTH_PENDING_KEYWORDS
        | flags.DNS_OPTION_FIRST
        | flags.CC_EXIT
        | flags.AUTH_FAILED_TEMP
        | flags.DYNAMIC_TLS_CRYPT
    )
    assert announced("a01-tlscrypt-aes256gcm") == pulling_2_6 == 990
    assert announced("a02-tlsauth-sha1-aes128gcm-prf") == flags.DATA_V2 | flags.REQUEST_PUSH
    assert announced("a14-p2p-tls") == 746
    assert announced("a12-aead-epoch") & (flags.AEAD_EPOCH | flags.DNS_OPTION | flags.PUSH_UPDATE)


@pytest.mark.parametrize("scenario", [name for name in PULLING if name not in CBC])
def test_both_ends_choose_the_cipher_of_the_capture(scenario: str) -> None:
    used = Cipher.parse(load(scenario, "secrets")["data_channel"]["cipher"])
    client = key_messages(scenario, Role.CLIENT)[0]["key_method_2"]
    server = key_messages(scenario, Role.SERVER)[0]["key_method_2"]
    peer_info = PeerInfo.parse(client["peer_info"])
    assert peer_info.ciphers == (used.value,)
    assert peer_info.accepts_pushed_cipher
    assert choose_cipher_for_client(DEFAULT_CIPHERS, peer_info, client["options"]) is used
    pushed = pushed_options(scenario)
    assert accept_pushed_cipher((used,), pushed.cipher, server["options"]) is used


def pushed_options(scenario: str) -> Any:
    reply = next(text for text in texts(scenario, Role.SERVER) if text.startswith("PUSH_REPLY"))
    options = PushReplyAssembler().add(reply)
    assert options is not None
    assert serialize_push_reply(options) == [reply]
    return parse_pushed_options(options)


@pytest.mark.parametrize("scenario", PULLING)
def test_push_replies_are_read(scenario: str) -> None:
    pushed = pushed_options(scenario)
    secrets = load(scenario, "secrets")
    assert (pushed.ping, pushed.ping_restart) == (3, 20)
    assert pushed.cipher == secrets["data_channel"]["cipher"]
    assert pushed.uses_exporter == (secrets["data_channel"]["key_derivation"] == "tls-ekm")
    assert ("dyn-tls-crypt" in pushed.protocol_flags) == bool(secrets["dynamic_tls_crypt"])
    assert pushed.ignored == ()
    expected_peer = {"a08-userpass-authtoken": 1, "a12-aead-epoch": None}.get(scenario, 0)
    assert pushed.peer_id == expected_peer
    # 2.5 sends no IV_MTU and gets no tun-mtu.
    assert pushed.tun_mtu == (None if scenario.startswith("a02") else 1500)


def test_a_renewed_token_comes_alone_and_is_not_shown() -> None:
    first, renewed = [text for text in texts("a08-userpass-authtoken", Role.SERVER) if "auth-token" in text]
    options = PushReplyAssembler().add(renewed)
    assert options is not None
    pushed = parse_pushed_options(options)
    assert len(options) == 1
    token = options[0].removeprefix("auth-token ")
    assert token.startswith("SESS_ID_") and pushed == PushedOptions(auth_token=token)
    assert token not in repr(parse_message(renewed))
    assert token not in first


@pytest.mark.parametrize("scenario", TLS_SCENARIOS)
def test_text_messages_are_known_and_serialize_to_the_same_octets(scenario: str) -> None:
    kinds = (PushRequest, PushReply, AuthFailed, Exit)
    for role in Role:
        for text in texts(scenario, role):
            message = parse_message(text)
            assert isinstance(message, kinds)
            assert serialize_message(message) == text.encode() + b"\0"


@pytest.mark.parametrize("scenario", TLS_SCENARIOS)
def test_no_secret_of_a_key_message_shows_in_its_repr(scenario: str) -> None:
    for message in key_messages(scenario, Role.CLIENT):
        client = parse_client_key_message(bytes.fromhex(message["bytes"]))
        shown = repr(client)
        assert repr(client.pre_master) not in shown and repr(client.random1) not in shown
        for secret in (client.username, client.password):
            assert not secret or secret not in shown
