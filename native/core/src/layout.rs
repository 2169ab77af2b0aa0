//! Where the payload of a data packet stands, by the format of its key.
//!
//! Source: `docs/protocol/data.md#2-1, #2-2, #2-3`.

use crate::packet::{DataHeader, PACKET_ID_OCTETS, TAG_OCTETS};

/// Bytes of an AES block, and of the IV of CBC.
pub const BLOCK_OCTETS: usize = 16;
/// Bytes of epoch (2) and counter (6) in the epoch format.
pub const EPOCH_IDENTITY_OCTETS: usize = 8;
/// The most that a packet has in addition to its payload: header, the longest HMAC, IV, packet id and padding.
pub const MOST_OVERHEAD: usize = 4 + 64 + BLOCK_OCTETS + PACKET_ID_OCTETS + BLOCK_OCTETS;

/// How a key packs its payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Format {
    /// `header | packet id | tag | ciphertext`.
    #[default]
    Aead,
    /// `header | HMAC | IV | ciphertext`; packet id and payload are encrypted, and padded to whole blocks.
    Cbc {
        /// Bytes of the HMAC.
        mac: u8,
    },
    /// `header | epoch and counter | ciphertext | tag`.
    Epoch,
    /// `HMAC | IV | ciphertext`, of a static key: as `Cbc` without a header, and with a time beside the packet id.
    Static {
        /// Bytes of the HMAC.
        mac: u8,
    },
}

/// Bytes of packet id and time under a static key.
pub const LONG_PACKET_ID_OCTETS: usize = 8;
/// Added to the HMAC of a static key.
const STATIC: u8 = 0x80;

/// `Epoch` as one byte; no HMAC has that length.
const EPOCH: u8 = 1;

impl Format {
    /// As one byte, for atomics.
    #[must_use]
    pub fn to_byte(self) -> u8 {
        match self {
            Self::Aead => 0,
            Self::Cbc { mac } => mac,
            Self::Epoch => EPOCH,
            Self::Static { mac } => STATIC | mac,
        }
    }

    /// From `to_byte`.
    #[must_use]
    #[inline]
    pub fn from_byte(byte: u8) -> Self {
        match byte {
            0 => Self::Aead,
            EPOCH => Self::Epoch,
            mac if mac >= STATIC => Self::Static { mac: mac & !STATIC },
            mac => Self::Cbc { mac },
        }
    }
}

/// See the module.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Layout {
    /// Bytes in front of the payload.
    pub front: usize,
    /// Bytes behind it, if it is not padded.
    behind: usize,
    /// Bytes that are encrypted and padded with it, in front; 0: it is not padded.
    before: usize,
}

impl Layout {
    /// Of packets with this header.
    #[must_use]
    #[inline]
    pub fn of(header: &DataHeader, format: Format) -> Self {
        let (front, behind, before) = match format {
            Format::Aead => (PACKET_ID_OCTETS + TAG_OCTETS, 0, 0),
            Format::Cbc { mac } => (usize::from(mac) + BLOCK_OCTETS + PACKET_ID_OCTETS, 0, PACKET_ID_OCTETS),
            Format::Epoch => (EPOCH_IDENTITY_OCTETS, TAG_OCTETS, 0),
            Format::Static { mac } => {
                let front = usize::from(mac) + BLOCK_OCTETS + LONG_PACKET_ID_OCTETS;
                return Self { front, behind: 0, before: LONG_PACKET_ID_OCTETS };
            }
        };
        Self { front: header.octets() + front, behind, before }
    }

    /// Bytes of the packet that carries so many bytes of payload.
    #[must_use]
    #[inline]
    pub fn sealed(&self, payload: usize) -> usize {
        if self.before > 0 {
            let content = self.before + payload;
            self.front - self.before + content - content % BLOCK_OCTETS + BLOCK_OCTETS
        } else {
            self.front + payload + self.behind
        }
    }

    /// The largest payload of at most so many bytes without a partial AES block, which costs as much as several whole
    /// ones. Where payloads are padded it is the same.
    #[must_use]
    #[inline]
    pub fn whole_blocks(&self, payload: usize) -> usize {
        if self.before > 0 {
            payload
        } else {
            payload - payload % BLOCK_OCTETS
        }
    }

    /// Bytes of the largest payload in a packet of at most so many bytes.
    #[must_use]
    #[inline]
    pub fn fit(&self, packet: usize) -> usize {
        if self.before > 0 {
            let blocks = packet.saturating_sub(self.front - self.before) / BLOCK_OCTETS * BLOCK_OCTETS;
            blocks.saturating_sub(1 + self.before)
        } else {
            packet.saturating_sub(self.front + self.behind)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn padding_fills_whole_blocks_and_what_fits_is_the_most_that_does() {
        let header = DataHeader { key_id: 0, peer_id: Some(1) };
        for format in
            [Format::Aead, Format::Epoch, Format::Cbc { mac: 20 }, Format::Cbc { mac: 64 }, Format::Static { mac: 32 }]
        {
            assert_eq!(Format::from_byte(format.to_byte()), format);
            let layout = Layout::of(&header, format);
            for payload in 1..200 {
                let sealed = layout.sealed(payload);
                assert!(sealed <= payload + MOST_OVERHEAD);
                let fit = layout.fit(sealed);
                assert!(fit >= payload && layout.sealed(fit) <= sealed && layout.sealed(fit + 1) > sealed);
            }
            assert_eq!(layout.fit(layout.front - 8), 0);
            let whole = if matches!(format, Format::Aead | Format::Epoch) { [96, 96, 112] } else { [96, 111, 112] };
            assert_eq!([96, 111, 112].map(|payload| layout.whole_blocks(payload)), whole);
        }
        let cbc = Layout::of(&header, Format::Cbc { mac: 32 });
        assert_eq!((cbc.front, cbc.sealed(90), cbc.sealed(91), cbc.sealed(92)), (56, 148, 148, 164));
    }
}
