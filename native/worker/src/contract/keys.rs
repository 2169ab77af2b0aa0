//! Keys of the data channel, and their ciphers.

use zeroize::Zeroizing;

/// A cipher of the data channel.
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
    /// AES-256-CBC, with an HMAC.
    Aes256Cbc,
    /// AES-192-CBC, with an HMAC.
    Aes192Cbc,
    /// AES-128-CBC, with an HMAC.
    Aes128Cbc,
}

impl Cipher {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "AES-256-GCM",
            Cipher::Aes192Gcm => "AES-192-GCM",
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::ChaCha20Poly1305 => "CHACHA20-POLY1305",
            Cipher::Aes256Cbc => "AES-256-CBC",
            Cipher::Aes192Cbc => "AES-192-CBC",
            Cipher::Aes128Cbc => "AES-128-CBC",
        }
    }

    /// From its name on the wire, in upper case.
    pub fn parse(name: &str) -> Option<Cipher> {
        match name {
            "AES-256-GCM" => Some(Cipher::Aes256Gcm),
            "AES-192-GCM" => Some(Cipher::Aes192Gcm),
            "AES-128-GCM" => Some(Cipher::Aes128Gcm),
            "CHACHA20-POLY1305" => Some(Cipher::ChaCha20Poly1305),
            "AES-256-CBC" => Some(Cipher::Aes256Cbc),
            "AES-192-CBC" => Some(Cipher::Aes192Cbc),
            "AES-128-CBC" => Some(Cipher::Aes128Cbc),
            _ => None,
        }
    }

    /// Bytes of its key.
    pub fn key_length(self) -> usize {
        match self {
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 | Cipher::Aes256Cbc => 32,
            Cipher::Aes192Gcm | Cipher::Aes192Cbc => 24,
            Cipher::Aes128Gcm | Cipher::Aes128Cbc => 16,
        }
    }

    /// Subject to the AEAD usage limit (docs/protocol/data.md#3-3).
    pub fn is_aes_gcm(self) -> bool {
        matches!(self, Cipher::Aes256Gcm | Cipher::Aes192Gcm | Cipher::Aes128Gcm)
    }
}

/// The digest of an HMAC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Digest {
    /// SHA1, 20 bytes.
    Sha1,
    /// SHA256, 32 bytes.
    Sha256,
    /// SHA384, 48 bytes.
    Sha384,
    /// SHA512, 64 bytes.
    Sha512,
}

impl Digest {
    /// From its name in OpenVPN's `auth`.
    pub fn parse(name: &str) -> Option<Digest> {
        match name {
            "SHA1" => Some(Digest::Sha1),
            "SHA256" => Some(Digest::Sha256),
            "SHA384" => Some(Digest::Sha384),
            "SHA512" => Some(Digest::Sha512),
            _ => None,
        }
    }

    /// Bytes of the HMAC and of its key.
    pub fn octets(self) -> usize {
        match self {
            Digest::Sha1 => 20,
            Digest::Sha256 => 32,
            Digest::Sha384 => 48,
            Digest::Sha512 => 64,
        }
    }
}

/// Keys of the HMAC that goes with a CBC cipher. Wiped when dropped.
pub struct HmacKeys {
    /// Of both directions.
    pub digest: Digest,
    /// `digest.octets()` bytes.
    pub send: Zeroizing<Vec<u8>>,
    /// `digest.octets()` bytes.
    pub receive: Zeroizing<Vec<u8>>,
}

/// How a key packs what it seals.
pub enum KeyFormat {
    /// AEAD ciphers.
    Aead,
    /// CBC ciphers.
    Cbc(HmacKeys),
    /// CBC ciphers with a static key, without TLS. `time`: Unix seconds, which grow from start to start.
    /// `mark`: the peer's packets up to this one came before.
    Static {
        /// The keys of its HMAC.
        hmacs: HmacKeys,
        /// In packets of ours.
        time: u32,
        /// The newest packet of an earlier session: its time (upper 32 bits) and its id; 0: none.
        mark: u64,
        /// The secret that marks our packets, where both directions have one key (decision 115); else empty.
        origin: Zeroizing<Vec<u8>>,
    },
    /// AEAD ciphers whose keys follow one another: `send_key` and `receive_key` are secrets of 32 bytes.
    Epoch,
}

/// Keys of one key id, seen from this end. Wiped when dropped; shows no secret.
pub struct Key {
    /// 0..=7.
    pub key_id: u8,
    /// The cipher of both directions.
    pub cipher: Cipher,
    /// Of both directions.
    pub format: KeyFormat,
    /// `cipher.key_length()` bytes.
    pub send_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce; unused in other formats than `Aead`.
    pub send_iv: Zeroizing<[u8; 8]>,
    /// `cipher.key_length()` bytes.
    pub receive_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce; unused in other formats than `Aead`.
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
