//! AEAD ciphers, in the format of OpenVPN 2.4: the tag stands before the ciphertext.
//!
//! Source: docs/protocol/data.md#2-1.

use aws_lc_rs::aead::{Aad, Algorithm, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::aead::{AES_128_GCM, AES_192_GCM, AES_256_GCM, CHACHA20_POLY1305};
use bridged_core::packet::{nonce, DataHeader, HEADER_V1, HEADER_V2, PACKET_ID_OCTETS, TAG_OCTETS};
use bridged_core::replay::ReplayWindow;
use zeroize::Zeroizing;

use super::{accept, Opener, Unsealed};
use crate::contract::{Cipher, Key};
use crate::error::Error;

/// Its secrets live inside the AEAD contexts, which aws-lc wipes when they are freed, and in the two implicit IVs, which
/// are wiped on drop.
pub struct Aead {
    seal: LessSafeKey,
    opening: LessSafeKey,
    seal_iv: Zeroizing<[u8; 8]>,
    open_iv: Zeroizing<[u8; 8]>,
}

impl Aead {
    /// # Errors
    /// [`Error::BadSetting`]: key length, or no AEAD cipher.
    pub fn new(key: &Key) -> Result<Aead, Error> {
        Ok(Aead {
            seal: context(key.cipher, &key.send_key)?,
            opening: context(key.cipher, &key.receive_key)?,
            seal_iv: key.send_iv.clone(),
            open_iv: key.receive_iv.clone(),
        })
    }

    /// Seal the payload behind `header.overhead()` bytes of `packet`, and write what belongs in front of it.
    #[inline]
    pub fn seal(&self, header: &DataHeader, packet: &mut [u8], id: u32) -> bool {
        let body = header.overhead();
        let (front, payload) = packet.split_at_mut(body);
        let written = header.write(id, front);
        let (front, tag) = front.split_at_mut(written);
        let additional = Aad::from(&front[header.additional_data()]);
        let nonce = Nonce::assume_unique_for_key(nonce(id, &self.seal_iv));
        // It fails only for payloads of many gigabytes.
        self.seal.seal_in_place_scatter(nonce, additional, payload, &[], tag).is_ok()
    }

    /// As [`seal`](Self::seal), of a payload that lies elsewhere: it is read there and not copied before.
    #[inline]
    pub fn seal_from(&self, header: &DataHeader, payload: &[u8], packet: &mut [u8], id: u32) -> bool {
        let (front, text) = packet.split_at_mut(header.overhead());
        let written = header.write(id, front);
        let (front, tag) = front.split_at_mut(written);
        let additional = Aad::from(&front[header.additional_data()]);
        let nonce = Nonce::assume_unique_for_key(nonce(id, &self.seal_iv));
        // It fails only for payloads of many gigabytes.
        self.seal.seal_out_of_place_scatter(nonce, additional, payload, text, &[], tag).is_ok()
    }
}

impl Opener for Aead {
    type Turn<'a> = ();

    #[inline]
    fn begin(&self) {}

    #[inline]
    fn least(&self, header: usize) -> usize {
        header + PACKET_ID_OCTETS + TAG_OCTETS
    }

    #[inline]
    fn open_one(
        &self,
        _: &mut (),
        window: &mut ReplayWindow,
        packet: &mut [u8],
        header: usize,
        length: usize,
    ) -> Unsealed {
        match self.open(packet, header, length) {
            Some(id) => {
                let body = header + PACKET_ID_OCTETS + TAG_OCTETS;
                accept(window, id, body, length - body)
            }
            None => Unsealed::Forged,
        }
    }
}

impl Aead {
    /// The packet's id, if it is authentic; its payload is plain then.
    #[inline]
    fn open(&self, packet: &mut [u8], header: usize, length: usize) -> Option<u32> {
        let (front, rest) = packet.split_at_mut_checked(header + PACKET_ID_OCTETS)?;
        let id = u32::from_be_bytes(*front.last_chunk()?);
        let additional = &front[if header == HEADER_V2 { 0 } else { HEADER_V1 }..];
        // The library wants the tag behind the text. What stands there is the next packet's: put it back.
        let end = length - front.len();
        let tag: [u8; TAG_OCTETS] = *rest.first_chunk()?;
        let behind: [u8; TAG_OCTETS] = *rest.get(end..)?.first_chunk()?;
        rest[end..end + TAG_OCTETS].copy_from_slice(&tag);
        let nonce = Nonce::assume_unique_for_key(nonce(id, &self.open_iv));
        let text = &mut rest[TAG_OCTETS..end + TAG_OCTETS];
        let is_authentic = self.opening.open_in_place(nonce, Aad::from(additional), text).is_ok();
        rest[end..end + TAG_OCTETS].copy_from_slice(&behind);
        is_authentic.then_some(id)
    }
}

/// # Errors
/// [`Error::BadSetting`]: key length, or no AEAD cipher.
pub fn context(cipher: Cipher, key: &[u8]) -> Result<LessSafeKey, Error> {
    let algorithm: &Algorithm = match cipher {
        Cipher::Aes256Gcm => &AES_256_GCM,
        Cipher::Aes192Gcm => &AES_192_GCM,
        Cipher::Aes128Gcm => &AES_128_GCM,
        Cipher::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        Cipher::Aes256Cbc | Cipher::Aes192Cbc | Cipher::Aes128Cbc => {
            return Err(Error::BadSetting(format!("{} needs the key of an HMAC", cipher.name())))
        }
    };
    let unbound = UnboundKey::new(algorithm, key)
        .map_err(|_| Error::BadSetting(format!("a key for {} has {} bytes", cipher.name(), cipher.key_length())))?;
    Ok(LessSafeKey::new(unbound))
}
