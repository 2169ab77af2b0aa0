//! Keys of the data channel, and their ciphers.

use zeroize::Zeroizing;

/// An AEAD cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM.
    Aes256Gcm,
    /// AES-192-GCM.
    Aes192Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// CHACHA20-POLY1305.
    ChaCha20Poly1305,
}

impl Cipher {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "AES-256-GCM",
            Cipher::Aes192Gcm => "AES-192-GCM",
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        }
    }

    /// From its name on the wire, in upper case.
    pub fn parse(name: &str) -> Option<Cipher> {
        match name {
            "AES-256-GCM" => Some(Cipher::Aes256Gcm),
            "AES-192-GCM" => Some(Cipher::Aes192Gcm),
            "AES-128-GCM" => Some(Cipher::Aes128Gcm),
            "CHACHA20-POLY1305" => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Bytes of its key.
    pub fn key_length(self) -> usize {
        match self {
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
            Cipher::Aes192Gcm => 24,
            Cipher::Aes128Gcm => 16,
        }
    }

    /// Subject to the AEAD usage limit (docs/protocol/data.md#3-3).
    pub fn is_aes_gcm(self) -> bool {
        self != Cipher::ChaCha20Poly1305
    }
}

/// Keys of one key id, seen from this end. Wiped when dropped; shows no secret.
pub struct Key {
    /// 0..=7.
    pub key_id: u8,
    /// The cipher of both directions.
    pub cipher: Cipher,
    /// `cipher.key_length()` bytes.
    pub send_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce.
    pub send_iv: Zeroizing<[u8; 8]>,
    /// `cipher.key_length()` bytes.
    pub receive_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce.
    pub receive_iv: Zeroizing<[u8; 8]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("key_id", &self.key_id)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}
