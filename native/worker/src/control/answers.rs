//! Hard resets, answered where they arrive: a forged one costs a check of its wrap and, at most, one small
//! packet.
//!
//! Source: `bridged/protocol/strangers/listener.py`, `cookie.py`; docs/protocol/control.md#2-5 and
//! #4-2. No state is kept for a source: the client has to bring back the cookie in the answer.

use std::net::{IpAddr, SocketAddr};

use aws_lc_rs::hmac;
use bridged_core::{Nanos, SECOND};
use zeroize::Zeroizing;

use crate::control::counters::Reason;
use crate::control::wraps::{equal, Wrap, WrapSecrets, ANSWER_OCTETS, HEADER, STRANGER_OCTETS};
use crate::error::Error;

const HARD_RESET_CLIENT: u8 = 7;
const HARD_RESET_SERVER: u8 = 8;
const HARD_RESET_WITH_KEY: u8 = 10;
const CONTROL_WITH_KEY: u8 = 11;
const CONTROL: u8 = 4;
const ACK: u8 = 5;

const PACKET_ID_AT: usize = HEADER;
/// First byte of a packet id whose sender can repeat its wrapped key.
const EARLY: u8 = 0x0f;
const ACKS_MAX: usize = 8;
/// Bytes of an answer's body.
const BODY: usize = 17;
/// Early negotiation: the flag that asks for the wrapped key once more.
const RESEND_KEY: [u8; 6] = [0, 1, 0, 2, 0, 1];
const COOKIE: usize = 8;
/// As `_SLOTS_ACCEPTED` in cookie.py.
const SLOTS_ACCEPTED: i64 = 3;
const PURPOSE: &[u8] = b"session id";

/// What cookies are made with.
pub struct CookieSettings {
    /// 32 random bytes.
    pub secret: Zeroizing<Vec<u8>>,
    /// Seconds for which a cookie is made alike; at least 1.
    pub slot_seconds: u64,
}

/// A hard reset that deserves an answer.
pub struct Reset {
    /// The session id of its sender.
    pub session: [u8; 8],
    /// The wrap of a client that brought its key; it has to bring it again.
    keys: Option<Box<Wrap>>,
}

/// What a stranger's control packet is.
pub enum Stranger {
    /// A hard reset.
    Reset(Reset),
    /// A hard reset of a client that brings its key only now: the control plane has to remember it.
    KeyOnlyOnce([u8; 8]),
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

    /// The session of a hard reset that brings a key, which takes longer to open than all else here.
    #[must_use]
    pub fn session_with_key(&self, datagram: &[u8]) -> Option<[u8; 8]> {
        let brings_key = self.wrap.is_of_clients() && datagram.first()? >> 3 == HARD_RESET_WITH_KEY;
        datagram.get(1..HEADER).filter(|_| brings_key)?.try_into().ok()
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
        let has_key = matches!(opcode, HARD_RESET_WITH_KEY | CONTROL_WITH_KEY) && self.wrap.is_of_clients();
        if !has_key && !matches!(opcode, HARD_RESET_CLIENT | CONTROL | ACK) {
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
        if has_key {
            let (keys, packet) = self.wrap.of_client(datagram)?;
            let found = parse_body(keys.open(packet, &mut scratch)?, opcode)?;
            let is_early = packet[PACKET_ID_AT] == EARLY;
            return self.sort(opcode, found, session, source, now, is_early.then(|| Box::new(keys)));
        }
        match self.wrap.shared().map(|shared| shared.open(datagram, &mut scratch)) {
            Some(Ok(body)) => self.sort(opcode, parse_body(body, opcode)?, session, source, now, None),
            // It may have brought its key before.
            Some(Err(Reason::WrapMismatch)) | None if self.wrap.is_of_clients() && opcode != HARD_RESET_CLIENT => {
                Ok(Stranger::Unproven)
            }
            Some(Err(reason)) => Err(reason),
            None => Err(Reason::WrapMismatch),
        }
    }

    /// `found`: the session id that acknowledgements name, and the message id. `keys`: of a client that can bring
    /// its key again.
    fn sort(
        &self,
        opcode: u8,
        found: (Option<[u8; 8]>, Option<u32>),
        session: [u8; 8],
        source: &SocketAddr,
        now: Nanos,
        keys: Option<Box<Wrap>>,
    ) -> Result<Stranger, Reason> {
        match (opcode, found) {
            (HARD_RESET_CLIENT | HARD_RESET_WITH_KEY, (_, message_id)) if message_id != Some(0) => {
                Err(Reason::BadLength)
            }
            (HARD_RESET_WITH_KEY, _) if keys.is_none() => Ok(Stranger::KeyOnlyOnce(session)),
            (HARD_RESET_CLIENT | HARD_RESET_WITH_KEY, _) => Ok(Stranger::Reset(Reset { session, keys })),
            (_, (None, _)) => Ok(Stranger::Unproven),
            (_, (Some(cookie), _)) if self.is_cookie(&cookie, &session, source, now) => Ok(Stranger::Proven),
            _ => Err(Reason::CookieMismatch),
        }
    }

    /// The answer to a hard reset; its bytes in `answer`. `unix` in seconds.
    pub fn answer(
        &self,
        reset: &Reset,
        source: &SocketAddr,
        now: Nanos,
        unix: u32,
        answer: &mut [u8; ANSWER_OCTETS],
    ) -> usize {
        let mut front = [HARD_RESET_SERVER << 3; HEADER];
        front[1..].copy_from_slice(&self.cookie(&reset.session, source, self.slot_at(now)));
        // One acknowledgement, of message 0 of this session; then our own message 0.
        let mut body = [0; BODY + RESEND_KEY.len()];
        body[0] = 1;
        body[5..13].copy_from_slice(&reset.session);
        body[BODY..].copy_from_slice(&RESEND_KEY);
        match (&reset.keys, self.wrap.shared()) {
            (Some(keys), _) => keys.seal(&front, unix, &body, answer),
            (None, Some(shared)) => shared.seal(&front, unix, &body[..BODY], answer),
            (None, None) => 0,
        }
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

/// 16 bytes of an address, IPv4-mapped where it is IPv4.
fn mapped(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(v4) => v4.to_ipv6_mapped().octets(),
        IpAddr::V6(v6) => v6.octets(),
    }
}
