//! How strangers' control packets are wrapped: opened, and made.
//!
//! Source: `bridged/protocol/packets/wrap/`, the specification; docs/protocol/control.md#2-2 to #2-5.

use std::ops::RangeInclusive;

use aws_lc_rs::cipher::{
    DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey, AES_256,
};
use aws_lc_rs::hmac;
use zeroize::Zeroizing;

use crate::control::counters::Reason;

/// Bytes of opcode and session id.
pub const HEADER: usize = 9;
/// Bytes of the largest control packet of a stranger; as `MAX_CONTROL_DATAGRAM`.
pub const STRANGER_OCTETS: usize = 2560;
/// Bytes of an answer with the longest digest.
pub const ANSWER_OCTETS: usize = 128;
const IDS: usize = 8;
const TAG: usize = 32;
const KEY: usize = 32;
const LENGTH_FIELD: usize = 2;
const WRAPPED_MOST: usize = 1024;
/// Bytes of a client's wrapped key: tag, key, metadata and length.
const WRAPPED: RangeInclusive<usize> = 290..=WRAPPED_MOST;
/// Wrap packet id of every answer.
const ANSWER_PACKET_ID: u32 = 1;

/// Secrets of a wrap, as the contract has them.
pub struct WrapSecrets {
    /// `none`, `tls-auth`, `tls-crypt` or `tls-crypt-v2`.
    pub name: String,
    /// Of tls-auth, as `SHA256`.
    pub digest: String,
    /// HMAC keys. Of tls-crypt-v2 only `receive`, of the server's key, as `receive_cipher` of its AES.
    pub send: Zeroizing<Vec<u8>>,
    /// Of the other direction.
    pub receive: Zeroizing<Vec<u8>>,
    /// AES keys of tls-crypt.
    pub send_cipher: Zeroizing<Vec<u8>>,
    /// Of the other direction.
    pub receive_cipher: Zeroizing<Vec<u8>>,
    /// Of tls-crypt-v2: the wrap of clients without a key of their own.
    pub old: Option<Box<WrapSecrets>>,
}

/// See the module.
#[allow(clippy::large_enum_variant)] // few at a time
pub enum Wrap {
    None,
    TlsAuth {
        send: hmac::Key,
        receive: hmac::Key,
        length: usize,
    },
    TlsCrypt {
        send: hmac::Key,
        receive: hmac::Key,
        encrypt: EncryptingKey,
        decrypt: DecryptingKey,
    },
    /// Each client has a key of its own and brings it along, sealed with this one; but for old ones.
    TlsCryptV2 {
        receive: hmac::Key,
        decrypt: DecryptingKey,
        old: Option<Box<Wrap>>,
    },
}

impl Wrap {
    pub fn new(secrets: &WrapSecrets) -> Option<Wrap> {
        match secrets.name.as_str() {
            "none" => Some(Wrap::None),
            "tls-auth" => {
                let (algorithm, length) = match secrets.digest.as_str() {
                    "SHA1" => (hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, 20),
                    "SHA224" => (hmac::HMAC_SHA224, 28),
                    "SHA256" => (hmac::HMAC_SHA256, 32),
                    "SHA384" => (hmac::HMAC_SHA384, 48),
                    "SHA512" => (hmac::HMAC_SHA512, 64),
                    _ => return None,
                };
                let (send, receive) =
                    (hmac::Key::new(algorithm, &secrets.send), hmac::Key::new(algorithm, &secrets.receive));
                Some(Wrap::TlsAuth { send, receive, length })
            }
            "tls-crypt" => {
                Wrap::tls_crypt(&secrets.send, &secrets.receive, &secrets.send_cipher, &secrets.receive_cipher)
            }
            "tls-crypt-v2" => Some(Wrap::TlsCryptV2 {
                receive: hmac::Key::new(hmac::HMAC_SHA256, &secrets.receive),
                decrypt: decrypting(&secrets.receive_cipher)?,
                old: match &secrets.old {
                    Some(old) => Some(Box::new(Wrap::new(old)?)),
                    None => None,
                },
            }),
            _ => None,
        }
    }

    fn tls_crypt(send: &[u8], receive: &[u8], encrypt: &[u8], decrypt: &[u8]) -> Option<Wrap> {
        Some(Wrap::TlsCrypt {
            send: hmac::Key::new(hmac::HMAC_SHA256, send),
            receive: hmac::Key::new(hmac::HMAC_SHA256, receive),
            encrypt: EncryptingKey::ctr(UnboundCipherKey::new(&AES_256, encrypt).ok()?).ok()?,
            decrypt: decrypting(decrypt)?,
        })
    }

    /// The wrap of the client whose key is behind this packet, and the packet without it.
    pub fn of_client<'a>(&self, datagram: &'a [u8]) -> Result<(Wrap, &'a [u8]), Reason> {
        let Wrap::TlsCryptV2 { receive, decrypt, .. } = self else { return Err(Reason::BadOpcode) };
        let Some((_, length)) = datagram.split_last_chunk::<LENGTH_FIELD>() else { return Err(Reason::BadLength) };
        let size = usize::from(u16::from_be_bytes(*length));
        if !WRAPPED.contains(&size) || size >= datagram.len() {
            return Err(Reason::BadLength);
        }
        let (packet, wrapped) = datagram.split_at(datagram.len() - size);
        let (tag, sealed) = wrapped[..size - LENGTH_FIELD].split_at(TAG);
        let mut plain = Zeroizing::new([0; WRAPPED_MOST]);
        let plain = &mut plain[..sealed.len()];
        plain.copy_from_slice(sealed);
        if decrypt.decrypt(plain, DecryptionContext::Iv128(first_block(tag).into())).is_err() {
            return Err(Reason::WrapMismatch);
        }
        let mut context = hmac::Context::with_key(receive);
        context.update(length);
        context.update(plain);
        if !equal(context.sign().as_ref(), tag) {
            return Err(Reason::WrapMismatch);
        }
        // As bridged/protocol/packets/wrap/tls_crypt.py: the server sends with the lower half.
        let part = |start: usize| &plain[start..start + KEY];
        Wrap::tls_crypt(part(64), part(192), part(0), part(128)).map(|wrap| (wrap, packet)).ok_or(Reason::WrapMismatch)
    }

    /// The wrap of clients that bring no key of their own.
    pub fn shared(&self) -> Option<&Wrap> {
        match self {
            Wrap::TlsCryptV2 { old, .. } => old.as_deref(),
            wrap => Some(wrap),
        }
    }

    /// Clients bring keys of their own.
    pub fn is_of_clients(&self) -> bool {
        matches!(self, Wrap::TlsCryptV2 { .. })
    }

    /// The body of a packet whose wrap is good.
    pub fn open<'a>(&self, datagram: &'a [u8], scratch: &'a mut [u8; STRANGER_OCTETS]) -> Result<&'a [u8], Reason> {
        match self {
            Wrap::None => Ok(&datagram[HEADER..]),
            Wrap::TlsCryptV2 { .. } => Err(Reason::WrapMismatch),
            Wrap::TlsAuth { receive, length, .. } => {
                let start = HEADER + length;
                let (Some(tag), Some(signed)) = (datagram.get(HEADER..start), datagram.get(start..)) else {
                    return Err(Reason::ShortPacket);
                };
                if signed.len() < IDS {
                    return Err(Reason::ShortPacket);
                }
                let mut context = hmac::Context::with_key(receive);
                context.update(&signed[..IDS]);
                context.update(&datagram[..HEADER]);
                context.update(&signed[IDS..]);
                if equal(context.sign().as_ref(), tag) {
                    Ok(&signed[IDS..])
                } else {
                    Err(Reason::WrapMismatch)
                }
            }
            Wrap::TlsCrypt { receive, decrypt, .. } => {
                const CLEAR: usize = HEADER + IDS;
                let (Some(tag), Some(sealed)) = (datagram.get(CLEAR..CLEAR + TAG), datagram.get(CLEAR + TAG..)) else {
                    return Err(Reason::ShortPacket);
                };
                let body = &mut scratch[..sealed.len()];
                body.copy_from_slice(sealed);
                if !body.is_empty() && decrypt.decrypt(body, DecryptionContext::Iv128(first_block(tag).into())).is_err()
                {
                    return Err(Reason::WrapMismatch);
                }
                let mut context = hmac::Context::with_key(receive);
                context.update(&datagram[..CLEAR]);
                context.update(body);
                if equal(context.sign().as_ref(), tag) {
                    Ok(body)
                } else {
                    Err(Reason::WrapMismatch)
                }
            }
        }
    }

    pub fn seal(&self, front: &[u8; HEADER], unix: u32, body: &[u8], packet: &mut [u8; ANSWER_OCTETS]) -> usize {
        let mut ids = [0; IDS];
        ids[..4].copy_from_slice(&ANSWER_PACKET_ID.to_be_bytes());
        ids[4..].copy_from_slice(&unix.to_be_bytes());
        let mut length = 0;
        let mut put = |octets: &[u8]| {
            packet[length..length + octets.len()].copy_from_slice(octets);
            length += octets.len();
        };
        put(front);
        match self {
            Wrap::None => put(body),
            Wrap::TlsCryptV2 { .. } => return 0,
            Wrap::TlsAuth { send, .. } => {
                let mut context = hmac::Context::with_key(send);
                context.update(&ids);
                context.update(front);
                context.update(body);
                put(context.sign().as_ref());
                put(&ids);
                put(body);
            }
            Wrap::TlsCrypt { send, encrypt, .. } => {
                let mut context = hmac::Context::with_key(send);
                context.update(front);
                context.update(&ids);
                context.update(body);
                let tag = context.sign();
                put(&ids);
                put(tag.as_ref());
                put(body);
                let iv = EncryptionContext::Iv128(first_block(tag.as_ref()).into());
                if encrypt.less_safe_encrypt(&mut packet[HEADER + IDS + TAG..length], iv).is_err() {
                    return 0;
                }
            }
        }
        length
    }
}

fn decrypting(key: &[u8]) -> Option<DecryptingKey> {
    DecryptingKey::ctr(UnboundCipherKey::new(&AES_256, key).ok()?).ok()
}

fn first_block(tag: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block.copy_from_slice(&tag[..16]);
    block
}

/// In constant time.
pub fn equal(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
