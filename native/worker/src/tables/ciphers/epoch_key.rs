//! Keys of single epochs, and the one that this end seals in.
//!
//! Source: docs/protocol/data.md#2-3; `bridged/protocol/keys/epoch_keys.py`.

use std::sync::atomic::Ordering::Relaxed;

use aws_lc_rs::aead::{Aad, LessSafeKey, Nonce};
use aws_lc_rs::hkdf::{KeyType, Prk, HKDF_SHA256};
use bridged_core::layout::EPOCH_IDENTITY_OCTETS as IDENTITY_OCTETS;
use bridged_core::packet::{DataHeader, NONCE_OCTETS};
use zeroize::Zeroizing;

use super::aead;
use crate::contract::Cipher;
use crate::error::Error;
use crate::sync::AtomicU64;

/// Bytes of the secret of an epoch.
pub const SECRET_OCTETS: usize = 32;

type Secret = Zeroizing<[u8; SECRET_OCTETS]>;

/// What seals or opens in one epoch; wiped when dropped.
pub struct EpochKey {
    /// From 1 on.
    pub epoch: u16,
    secret: Secret,
    cipher: Cipher,
    /// Its cipher.
    pub key: LessSafeKey,
    iv: Zeroizing<[u8; NONCE_OCTETS]>,
}

impl EpochKey {
    /// # Errors
    /// [`Error::BadSetting`]: no AEAD cipher.
    pub fn new(epoch: u16, secret: Secret, cipher: Cipher) -> Result<EpochKey, Error> {
        let mut octets = Zeroizing::new(vec![0; cipher.key_length()]);
        expand(&secret, b"data_key", &mut octets)?;
        let mut iv = Zeroizing::new([0; NONCE_OCTETS]);
        expand(&secret, b"data_iv", &mut iv[..])?;
        Ok(EpochKey { epoch, key: aead::context(cipher, &octets)?, secret, cipher, iv })
    }

    /// The key of the epoch after this one.
    ///
    /// # Errors
    /// None in practice.
    pub fn next(&self) -> Result<EpochKey, Error> {
        let mut secret = Zeroizing::new([0; SECRET_OCTETS]);
        expand(&self.secret, b"datakey upd", &mut secret[..])?;
        EpochKey::new(self.epoch.saturating_add(1), secret, self.cipher)
    }

    /// The IV of the epoch XOR epoch and counter.
    #[inline]
    pub fn nonce(&self, identity: [u8; IDENTITY_OCTETS]) -> Nonce {
        // As numbers: a processor waits where bytes that were written singly are read at once.
        let [front @ .., a, b, c, d] = *self.iv;
        let [e, f, g, h, i, j, k, l] = (u64::from_ne_bytes(front) ^ u64::from_ne_bytes(identity)).to_ne_bytes();
        Nonce::assume_unique_for_key([e, f, g, h, i, j, k, l, a, b, c, d])
    }
}

/// The epoch that this end seals in.
pub struct SendEpoch {
    /// Its key.
    pub key: EpochKey,
    /// The counter that comes next.
    pub next: AtomicU64,
    /// Bytes of payload so far.
    pub octets: AtomicU64,
}

impl std::fmt::Debug for SendEpoch {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("SendEpoch").field("epoch", &self.key.epoch).finish_non_exhaustive()
    }
}

impl SendEpoch {
    /// Nothing was sealed in it yet.
    pub fn new(key: EpochKey) -> SendEpoch {
        SendEpoch { key, next: AtomicU64::new(1), octets: AtomicU64::new(0) }
    }
}

impl SendEpoch {
    /// Blocks and packets so far, or a few more.
    pub fn used(&self) -> u64 {
        self.octets.load(Relaxed) / 16 + 2 * self.next.load(Relaxed)
    }

    /// Seal `payload` bytes of `packet` that stand between header and identity in front, and the tag behind.
    #[inline]
    pub fn seal(&self, header: &DataHeader, packet: &mut [u8], payload: usize, counter: u64) -> bool {
        let Some((front, body)) = split(packet, header) else { return false };
        let Some((text, tag)) = body.split_at_mut_checked(payload) else { return false };
        let nonce = self.begin(header, front, counter);
        self.key.key.seal_in_place_scatter(nonce, Aad::from(&*front), text, &[], tag).is_ok()
    }

    /// As [`seal`](Self::seal), of a payload that lies elsewhere.
    #[inline]
    pub fn seal_from(&self, header: &DataHeader, payload: &[u8], packet: &mut [u8], counter: u64) -> bool {
        let Some((front, body)) = split(packet, header) else { return false };
        let Some((text, tag)) = body.split_at_mut_checked(payload.len()) else { return false };
        let nonce = self.begin(header, front, counter);
        self.key.key.seal_out_of_place_scatter(nonce, Aad::from(&*front), payload, text, &[], tag).is_ok()
    }

    /// Write what stands in front of a payload; the nonce.
    #[inline]
    fn begin(&self, header: &DataHeader, front: &mut [u8], counter: u64) -> Nonce {
        let at = header.write_first(front);
        let identity = identity(self.key.epoch, counter);
        front[at..].copy_from_slice(&identity);
        self.key.nonce(identity)
    }
}

#[inline]
fn split<'a>(packet: &'a mut [u8], header: &DataHeader) -> Option<(&'a mut [u8], &'a mut [u8])> {
    packet.split_at_mut_checked(header.octets() + IDENTITY_OCTETS)
}

#[inline]
fn identity(epoch: u16, counter: u64) -> [u8; IDENTITY_OCTETS] {
    (u64::from(epoch) << 48 | counter).to_be_bytes()
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand with the info of TLS 1.3 and another prefix.
fn expand(secret: &[u8; SECRET_OCTETS], label: &[u8], output: &mut [u8]) -> Result<(), Error> {
    let failed = |_| Error::BadSetting("a key of an epoch cannot be derived".into());
    let length = (output.len() as u16).to_be_bytes();
    let name_length = [label.len() as u8 + 5];
    let info: [&[u8]; 5] = [&length, &name_length, b"ovpn ", label, &[0]];
    Prk::new_less_safe(HKDF_SHA256, secret)
        .expand(&info, Length(output.len()))
        .and_then(|made| made.fill(output))
        .map_err(failed)
}
