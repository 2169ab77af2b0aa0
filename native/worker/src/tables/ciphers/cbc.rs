//! AES-CBC with an HMAC over IV and ciphertext, for peers that have no AEAD cipher.
//!
//! Source: docs/protocol/data.md#2-2 and #2-4. The HMAC is compared first, in constant time; padding is looked at only after
//! that, so it tells a forger nothing.

use aws_lc_rs::cipher::{DecryptingKey, DecryptionContext, EncryptingKey, EncryptionContext, UnboundCipherKey};
use aws_lc_rs::cipher::{AES_128, AES_192, AES_256};
use aws_lc_rs::constant_time::verify_slices_are_equal;
use aws_lc_rs::iv::FixedLength;
use aws_lc_rs::{hmac, rand};
use bridged_core::layout::{BLOCK_OCTETS, LONG_PACKET_ID_OCTETS};
use bridged_core::packet::{DataHeader, PACKET_ID_OCTETS};
use bridged_core::replay::{ReplayError, ReplayWindow};

use super::{accept, Opener, Unsealed};
use crate::contract::{Cipher, Digest, HmacKeys, Key};
use crate::error::Error;
use crate::sync::{lock, Mutex};

/// Its secrets live inside the contexts of aws-lc, which wipes the cipher's when they are freed.
pub struct Cbc {
    seal: EncryptingKey,
    opening: DecryptingKey,
    sign: hmac::Key,
    verify: hmac::Key,
    /// Bytes of the HMAC.
    mac: usize,
    clock: Option<Clock>,
}

/// The times of a static key's packets: what has an older time is a replay, and with a newer one ids begin again.
struct Clock {
    ours: u32,
    newest: Mutex<u32>,
    /// Marks our packets, where both directions have one key.
    origin: Option<hmac::Key>,
}

impl Clock {
    /// Id and time of the packet of this number, counted from 1: no id is 0.
    fn long_id(&self, number: u64) -> [u8; LONG_PACKET_ID_OCTETS] {
        let round = u64::from(u32::MAX);
        let (id, time) = ((number - 1) % round + 1, u64::from(self.ours) + (number - 1) / round);
        (id << 32 | time & round).to_be_bytes()
    }

    /// The IV of our packet with this id and time; None if our packets are not marked. As `static_packet.marked_iv`.
    fn marked_iv(&self, long_id: &[u8]) -> Option<[u8; BLOCK_OCTETS]> {
        let mac = hmac::sign(self.origin.as_ref()?, long_id);
        mac.as_ref().first_chunk().copied()
    }
}

impl Cbc {
    /// # Errors
    /// [`Error::BadSetting`]: key lengths, or another cipher.
    pub fn new(key: &Key, hmacs: &HmacKeys) -> Result<Cbc, Error> {
        let bad =
            |_| Error::BadSetting(format!("a key for {} has {} bytes", key.cipher.name(), key.cipher.key_length()));
        let unbound = |octets: &[u8]| match key.cipher {
            Cipher::Aes256Cbc => UnboundCipherKey::new(&AES_256, octets).map_err(bad),
            Cipher::Aes192Cbc => UnboundCipherKey::new(&AES_192, octets).map_err(bad),
            Cipher::Aes128Cbc => UnboundCipherKey::new(&AES_128, octets).map_err(bad),
            other => Err(Error::BadSetting(format!("{} has no HMAC", other.name()))),
        };
        let signing = |octets: &[u8]| {
            if octets.len() == hmacs.digest.octets() {
                Ok(hmac::Key::new(algorithm(hmacs.digest), octets))
            } else {
                Err(Error::BadSetting(format!("the key of this HMAC has {} bytes", hmacs.digest.octets())))
            }
        };
        Ok(Cbc {
            seal: EncryptingKey::cbc(unbound(&key.send_key)?).map_err(bad)?,
            opening: DecryptingKey::cbc(unbound(&key.receive_key)?).map_err(bad)?,
            sign: signing(&hmacs.send)?,
            verify: signing(&hmacs.receive)?,
            mac: hmacs.digest.octets(),
            clock: None,
        })
    }

    /// Of a static key: our time, the newest of the peer, and the secret that marks our packets (empty: none).
    pub fn with_clock(mut self, ours: u32, newest: u32, origin: &[u8]) -> Cbc {
        let origin = (!origin.is_empty()).then(|| hmac::Key::new(hmac::HMAC_SHA256, origin));
        self.clock = Some(Clock { ours, newest: Mutex::new(newest), origin });
        self
    }

    /// Seal `payload` bytes that stand in `packet` where the layout wants them; `packet` ends with the padding.
    /// `number`: of the packet, from 1 on.
    pub fn seal(&self, header: &DataHeader, packet: &mut [u8], payload: usize, number: u64) -> bool {
        let before = self.before();
        let content = before + payload;
        let padded = content - content % BLOCK_OCTETS + BLOCK_OCTETS;
        let Some(text_at) = packet.len().checked_sub(padded) else { return false };
        let Some(mac_at) = text_at.checked_sub(BLOCK_OCTETS + self.mac) else { return false };
        let written = if self.clock.is_some() { 0 } else { header.write_first(packet) };
        if written != mac_at {
            return false;
        }
        match &self.clock {
            Some(clock) => packet[text_at..text_at + before].copy_from_slice(&clock.long_id(number)),
            None => packet[text_at..text_at + before].copy_from_slice(&(number as u32).to_be_bytes()),
        }
        let marked = self.clock.as_ref().and_then(|clock| clock.marked_iv(&packet[text_at..text_at + before]));
        let mut iv = marked.unwrap_or_default();
        if marked.is_none() && rand::fill(&mut iv).is_err() {
            return false;
        }
        let end = text_at + content;
        let padding = (packet.len() - end) as u8;
        packet[end..].fill(padding);
        packet[text_at - BLOCK_OCTETS..text_at].copy_from_slice(&iv);
        let context = EncryptionContext::Iv128(FixedLength::from(iv));
        if self.seal.less_safe_encrypt(&mut packet[text_at..], context).is_err() {
            return false;
        }
        let mac = hmac::sign(&self.sign, &packet[text_at - BLOCK_OCTETS..]);
        packet[mac_at..mac_at + self.mac].copy_from_slice(mac.as_ref());
        true
    }
}

impl Cbc {
    /// The newest time of the peer's packets; None: not a static key's.
    pub fn newest_time(&self) -> Option<u32> {
        self.clock.as_ref().map(|clock| *lock(&clock.newest))
    }
}

impl Opener for Cbc {
    type Turn<'a> = ();

    #[inline]
    fn begin(&self) {}

    fn least(&self, header: usize) -> usize {
        header + self.mac + BLOCK_OCTETS
    }

    fn open_one(
        &self,
        _: &mut (),
        window: &mut ReplayWindow,
        packet: &mut [u8],
        header: usize,
        length: usize,
    ) -> Unsealed {
        match self.open(packet, header, length) {
            Some((id, time, text)) => {
                if let Some(clock) = &self.clock {
                    // What was opened is plain now; the IV stands before it as it came.
                    let iv_at = header + self.mac;
                    let long_id = (u64::from(id) << 32 | u64::from(time)).to_be_bytes();
                    let iv = packet.get(iv_at..iv_at + BLOCK_OCTETS).unwrap_or_default();
                    if clock.marked_iv(&long_id).is_some_and(|ours| verify_slices_are_equal(iv, &ours).is_ok()) {
                        return Unsealed::Reflected;
                    }
                    let mut newest = lock(&clock.newest);
                    if time < *newest {
                        return Unsealed::Refused(ReplayError::TooOld);
                    }
                    if time > *newest {
                        *newest = time;
                        window.clear();
                    }
                }
                accept(window, id, header + self.mac + BLOCK_OCTETS + self.before(), text)
            }
            None => Unsealed::Forged,
        }
    }
}

impl Cbc {
    /// Bytes that are encrypted in front of the payload: the packet id, and the time of a static key.
    fn before(&self) -> usize {
        if self.clock.is_some() {
            LONG_PACKET_ID_OCTETS
        } else {
            PACKET_ID_OCTETS
        }
    }

    /// Packet id, time (0: none) and bytes of the payload, if it is authentic; it is plain then.
    fn open(&self, packet: &mut [u8], header: usize, length: usize) -> Option<(u32, u32, usize)> {
        let iv_at = header + self.mac;
        let text_at = iv_at + BLOCK_OCTETS;
        let signed = packet.get(iv_at..length)?;
        if length <= text_at || (length - text_at) % BLOCK_OCTETS != 0 {
            return None;
        }
        hmac::verify(&self.verify, signed, &packet[header..iv_at]).ok()?;
        let iv: [u8; BLOCK_OCTETS] = *packet.get(iv_at..)?.first_chunk()?;
        let text = packet.get_mut(text_at..length)?;
        let plain = self.opening.decrypt(text, DecryptionContext::Iv128(FixedLength::from(iv))).ok()?;
        let padding = usize::from(*plain.last()?);
        if padding == 0
            || padding > BLOCK_OCTETS
            || !plain.iter().rev().take(padding).all(|&octet| octet as usize == padding)
        {
            return None;
        }
        let id = u32::from_be_bytes(*plain.first_chunk()?);
        let time = if self.clock.is_some() { u32::from_be_bytes(*plain.get(4..)?.first_chunk()?) } else { 0 };
        let length = plain.len().checked_sub(padding + self.before())?;
        Some((id, time, length))
    }
}

fn algorithm(digest: Digest) -> hmac::Algorithm {
    match digest {
        Digest::Sha1 => hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        Digest::Sha256 => hmac::HMAC_SHA256,
        Digest::Sha384 => hmac::HMAC_SHA384,
        Digest::Sha512 => hmac::HMAC_SHA512,
    }
}
