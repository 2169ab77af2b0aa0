//! Hard resets, answered where they arrive: a forged one costs a check of its wrap and, at most, one small
//! packet.
//!
//! Source: `bridged/protocol/strangers/listener.py`, `cookie.py` and `wrap/`; docs/protocol/control.md#2-2 to #2-4 and
//! #4-2. No state is kept for a source: the client has to bring back the cookie in the answer.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::cipher::{
    DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey, AES_256,
};
use aws_lc_rs::hmac;
use bridged_core::{Nanos, SECOND};
use zeroize::Zeroizing;

use crate::control::counters::Reason;
use crate::error::Error;

const HARD_RESET_CLIENT: u8 = 7;
const HARD_RESET_SERVER: u8 = 8;
const CONTROL: u8 = 4;
const ACK: u8 = 5;

const HEADER: usize = 9;
const IDS: usize = 8;
const TAG: usize = 32;
const ACKS_MAX: usize = 8;
const COOKIE: usize = 8;
/// As `_SLOTS_ACCEPTED` in cookie.py.
const SLOTS_ACCEPTED: i64 = 3;
const PURPOSE: &[u8] = b"session id";
/// Bytes of the largest control packet of a stranger; as `MAX_CONTROL_DATAGRAM`.
const STRANGER_OCTETS: usize = 2560;
/// Wrap packet id of every answer.
const ANSWER_PACKET_ID: u32 = 1;
/// Bytes of an answer with the longest digest.
pub const ANSWER_OCTETS: usize = 128;

/// Secrets of a wrap, as the contract has them.
pub struct WrapSecrets {
    /// `none`, `tls-auth` or `tls-crypt`.
    pub name: String,
    /// Of tls-auth, as `SHA256`.
    pub digest: String,
    /// HMAC keys.
    pub send: Zeroizing<Vec<u8>>,
    /// Of the other direction.
    pub receive: Zeroizing<Vec<u8>>,
    /// AES keys of tls-crypt.
    pub send_cipher: Zeroizing<Vec<u8>>,
    /// Of the other direction.
    pub receive_cipher: Zeroizing<Vec<u8>>,
}

/// What cookies are made with.
pub struct CookieSettings {
    /// 32 random bytes.
    pub secret: Zeroizing<Vec<u8>>,
    /// Seconds for which a cookie is made alike; at least 1.
    pub slot_seconds: u64,
}

#[allow(clippy::large_enum_variant)] // there is one of it
enum Wrap {
    None,
    TlsAuth { send: hmac::Key, receive: hmac::Key, length: usize },
    TlsCrypt { send: hmac::Key, receive: hmac::Key, encrypt: EncryptingKey, decrypt: DecryptingKey },
}

/// What a stranger's control packet is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stranger {
    /// A hard reset with this session id.
    Reset([u8; 8]),
    /// A packet that brings a cookie of ours back.
    Proven,
    /// One that could belong to a client that has done so.
    Unproven,
}

/// See the module.
pub struct Answers {
    wrap: Wrap,
    secret: hmac::Key,
    slot: u64,
}

impl Answers {
    /// Keys ready for use.
    ///
    /// # Errors
    /// [`Error::BadSetting`].
    pub fn new(secrets: &WrapSecrets, cookie: &CookieSettings) -> Result<Answers, Error> {
        let wrap = Wrap::new(secrets).ok_or_else(|| {
            Error::BadSetting(format!("control wrap {} with digest {:?} and these keys", secrets.name, secrets.digest))
        })?;
        let secret = hmac::Key::new(hmac::HMAC_SHA256, &cookie.secret);
        Ok(Answers { wrap, secret, slot: cookie.slot_seconds.max(1) })
    }

    /// Look at a control packet of a source that is not known.
    ///
    /// # Errors
    /// Why it can be nothing of use.
    pub fn judge(&self, datagram: &[u8], source: &SocketAddr, now: Nanos) -> Result<Stranger, Reason> {
        if datagram.len() > STRANGER_OCTETS {
            return Err(Reason::BadLength);
        }
        let (Some(first), Some(session)) = (datagram.first(), datagram.get(1..HEADER)) else {
            return Err(Reason::ShortPacket);
        };
        let opcode = first >> 3;
        if !matches!(opcode, HARD_RESET_CLIENT | CONTROL | ACK) {
            return Err(Reason::BadOpcode);
        }
        if first & 7 != 0 {
            return Err(Reason::UnknownKeyId);
        }
        let Ok(session) = <[u8; 8]>::try_from(session) else { return Err(Reason::ShortPacket) };
        if session == [0; 8] {
            return Err(Reason::BadLength);
        }
        let mut scratch = [0; STRANGER_OCTETS];
        let body = self.wrap.open(datagram, &mut scratch)?;
        let (remote, message_id) = parse_body(body, opcode)?;
        match (opcode, remote) {
            (HARD_RESET_CLIENT, _) if message_id == Some(0) => Ok(Stranger::Reset(session)),
            (HARD_RESET_CLIENT, _) => Err(Reason::BadLength),
            (_, None) => Ok(Stranger::Unproven),
            (_, Some(cookie)) if self.is_cookie(&cookie, &session, source, now) => Ok(Stranger::Proven),
            _ => Err(Reason::CookieMismatch),
        }
    }

    /// The answer to a hard reset with this session id; its bytes in `answer`. `unix` in seconds.
    pub fn answer(
        &self,
        session: &[u8; 8],
        source: &SocketAddr,
        now: Nanos,
        unix: u32,
        answer: &mut [u8; ANSWER_OCTETS],
    ) -> usize {
        let mut front = [HARD_RESET_SERVER << 3; HEADER];
        front[1..].copy_from_slice(&self.cookie(session, source, self.slot_at(now)));
        // One acknowledgement, of message 0 of this session; then our own message 0.
        let mut body = [0; 17];
        body[0] = 1;
        body[5..13].copy_from_slice(session);
        self.wrap.seal(&front, unix, &body, answer)
    }

    fn slot_at(&self, now: Nanos) -> i64 {
        (now / (self.slot * SECOND)) as i64
    }

    fn is_cookie(&self, cookie: &[u8; COOKIE], session: &[u8; 8], source: &SocketAddr, now: Nanos) -> bool {
        let slot = self.slot_at(now);
        (0..SLOTS_ACCEPTED)
            .fold(false, |is_good, age| is_good | equal(cookie, &self.cookie(session, source, slot - age)))
    }

    fn cookie(&self, session: &[u8; 8], source: &SocketAddr, slot: i64) -> [u8; COOKIE] {
        let mut context = hmac::Context::with_key(&self.secret);
        context.update(PURPOSE);
        context.update(&slot.to_be_bytes());
        context.update(&source.port().to_be_bytes());
        context.update(session);
        context.update(&mapped(source.ip()));
        let mut cookie = [0; COOKIE];
        cookie.copy_from_slice(&context.sign().as_ref()[..COOKIE]);
        if cookie == [0; COOKIE] {
            cookie[COOKIE - 1] = 1;
        }
        cookie
    }
}

impl Wrap {
    fn new(secrets: &WrapSecrets) -> Option<Wrap> {
        let cipher = |octets: &[u8]| UnboundCipherKey::new(&AES_256, octets).ok();
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
            "tls-crypt" => Some(Wrap::TlsCrypt {
                send: hmac::Key::new(hmac::HMAC_SHA256, &secrets.send),
                receive: hmac::Key::new(hmac::HMAC_SHA256, &secrets.receive),
                encrypt: EncryptingKey::ctr(cipher(&secrets.send_cipher)?).ok()?,
                decrypt: DecryptingKey::ctr(cipher(&secrets.receive_cipher)?).ok()?,
            }),
            _ => None,
        }
    }

    /// The body of a packet whose wrap is good.
    fn open<'a>(&self, datagram: &'a [u8], scratch: &'a mut [u8; STRANGER_OCTETS]) -> Result<&'a [u8], Reason> {
        match self {
            Wrap::None => Ok(&datagram[HEADER..]),
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

    fn seal(&self, front: &[u8; HEADER], unix: u32, body: &[u8], packet: &mut [u8; ANSWER_OCTETS]) -> usize {
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

/// The session id that acknowledgements name, and the message id.
fn parse_body(body: &[u8], opcode: u8) -> Result<(Option<[u8; 8]>, Option<u32>), Reason> {
    let count = usize::from(*body.first().ok_or(Reason::ShortPacket)?);
    if count > ACKS_MAX {
        return Err(Reason::BadLength);
    }
    let position = 1 + 4 * count + if count > 0 { 8 } else { 0 };
    let remote = if count > 0 {
        let octets = body.get(position - 8..position).ok_or(Reason::ShortPacket)?;
        Some(<[u8; 8]>::try_from(octets).map_err(|_| Reason::ShortPacket)?)
    } else {
        None
    };
    if opcode == ACK {
        return if body.len() == position { Ok((remote, None)) } else { Err(Reason::BadLength) };
    }
    let octets = body.get(position..position + 4).ok_or(Reason::ShortPacket)?;
    let message_id = <[u8; 4]>::try_from(octets).map_err(|_| Reason::ShortPacket)?;
    Ok((remote, Some(u32::from_be_bytes(message_id))))
}

fn first_block(tag: &[u8]) -> [u8; 16] {
    let mut block = [0; 16];
    block.copy_from_slice(&tag[..16]);
    block
}

/// 16 bytes of an address, IPv4-mapped where it is IPv4.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}

/// In constant time.
fn equal(left: &[u8], right: &[u8]) -> bool {
    aws_lc_rs::constant_time::verify_slices_are_equal(left, right).is_ok()
}
