//! Data packets with an AEAD cipher: headers, nonces and what the payload may be instead of a frame.
//!
//! Source: `docs/protocol/data.md#2, #2-1, #5-1, #5-2`.
//!
//! `header (1 or 4) | packet id (4) | tag (16) | ciphertext`. Additional data are header and packet id in DATA_V2, the
//! packet id alone in DATA_V1: [`DataHeader::additional_data`].

use thiserror::Error;

/// Opcode of a data packet without a peer id.
pub const OPCODE_DATA_V1: u8 = 6;
/// Opcode of a data packet with a peer id.
pub const OPCODE_DATA_V2: u8 = 9;
/// Bytes of the header of DATA_V1.
pub const HEADER_V1: usize = 1;
/// Bytes of the header of DATA_V2.
pub const HEADER_V2: usize = 4;
/// Bytes of the packet id.
pub const PACKET_ID_OCTETS: usize = 4;
/// Bytes of the AEAD tag.
pub const TAG_OCTETS: usize = 16;
/// Bytes of the nonce.
pub const NONCE_OCTETS: usize = 12;
/// Bytes of the implicit IV, the nonce's constant part.
pub const IMPLICIT_IV_OCTETS: usize = 8;
/// Bytes in front of the ciphertext of DATA_V2.
pub const OVERHEAD_V2: usize = HEADER_V2 + PACKET_ID_OCTETS + TAG_OCTETS;
/// The peer id that means "none"; also the largest that fits.
pub const NO_PEER_ID: u32 = 0x00FF_FFFF;
/// An Ethernet header: shorter payloads are no frames.
pub const LEAST_FRAME_OCTETS: usize = 14;

/// The whole payload of a keepalive ping.
pub const PING: [u8; 16] =
    [0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb, 0x07, 0xed, 0x2d, 0x0a, 0x98, 0x1f, 0xc7, 0x48];
/// What an OCC message begins with.
pub const OCC_MAGIC: [u8; 16] =
    [0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81, 0x2d, 0x56, 0xb8, 0xd3, 0xaf, 0xc5, 0x45, 0x9c];
const PING_HEAD: [u8; 8] = [0x2a, 0x18, 0x7b, 0xf3, 0x64, 0x1e, 0xb4, 0xcb];
const OCC_HEAD: [u8; 8] = [0x28, 0x7f, 0x34, 0x6b, 0xd4, 0xef, 0x7a, 0x81];

/// Why a packet is not a data packet that could be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum PacketError {
    /// Too few bytes for header, packet id, tag and one byte of payload.
    #[error("{0} bytes are no data packet")]
    Short(usize),
    /// The opcode is not that of data.
    #[error("opcode {0} is not a data packet")]
    Opcode(u8),
}

impl PacketError {
    /// The drop reason of metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Short(_) => "short_packet",
            Self::Opcode(_) => "bad_opcode",
        }
    }
}

/// The high five bits of the first byte.
#[must_use]
pub fn opcode(first_octet: u8) -> u8 {
    first_octet >> 3
}

/// Whether a datagram is for the data channel, by its first byte; everything else goes to the control plane.
#[must_use]
pub fn is_data(datagram: &[u8]) -> bool {
    datagram.first().is_some_and(|&first| matches!(opcode(first), OPCODE_DATA_V1 | OPCODE_DATA_V2))
}

/// Key id and peer id (DATA_V2 only; None in DATA_V1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataHeader {
    /// 0..7.
    pub key_id: u8,
    /// 24 bits.
    pub peer_id: Option<u32>,
}

impl DataHeader {
    /// Read first byte and peer id.
    ///
    /// # Errors
    /// [`PacketError::Short`] where they are not there; [`PacketError::Opcode`] for anything but data.
    pub fn parse(packet: &[u8]) -> Result<Self, PacketError> {
        let &first = packet.first().ok_or(PacketError::Short(0))?;
        let key_id = first & 7;
        match opcode(first) {
            OPCODE_DATA_V1 => Ok(Self { key_id, peer_id: None }),
            OPCODE_DATA_V2 => match packet.first_chunk::<HEADER_V2>() {
                Some(&[_, a, b, c]) => Ok(Self { key_id, peer_id: Some(u32::from_be_bytes([0, a, b, c])) }),
                None => Err(PacketError::Short(packet.len())),
            },
            other => Err(PacketError::Opcode(other)),
        }
    }

    /// Bytes of the header: 1 or 4.
    #[must_use]
    #[inline]
    pub fn octets(&self) -> usize {
        if self.peer_id.is_some() {
            HEADER_V2
        } else {
            HEADER_V1
        }
    }

    /// Bytes in front of the ciphertext: 21 or 24.
    #[must_use]
    #[inline]
    pub fn overhead(&self) -> usize {
        self.octets() + PACKET_ID_OCTETS + TAG_OCTETS
    }

    /// Write header and packet id to the start of `packet`; how many bytes that were (8 or 5).
    ///
    /// Bits of `key_id` above 3 and of `peer_id` above 24 are cut off. Writes nothing where there is no room (0).
    #[inline]
    pub fn write(&self, packet_id: u32, packet: &mut [u8]) -> usize {
        match self.first_word() {
            Some(word) => {
                let Some(room) = packet.first_chunk_mut::<{ HEADER_V2 + PACKET_ID_OCTETS }>() else { return 0 };
                *room = (u64::from(word) << 32 | u64::from(packet_id)).to_be_bytes();
                room.len()
            }
            None => {
                let Some(room) = packet.first_chunk_mut::<{ HEADER_V1 + PACKET_ID_OCTETS }>() else { return 0 };
                let [p0, p1, p2, p3] = packet_id.to_be_bytes();
                *room = [self.first_octet(OPCODE_DATA_V1), p0, p1, p2, p3];
                room.len()
            }
        }
    }

    /// Write the header alone to the start of `packet`; how many bytes that were (4 or 1; 0: no room).
    #[inline]
    pub fn write_first(&self, packet: &mut [u8]) -> usize {
        match self.first_word() {
            Some(word) => {
                let Some(room) = packet.first_chunk_mut::<HEADER_V2>() else { return 0 };
                *room = word.to_be_bytes();
                HEADER_V2
            }
            None => {
                let Some(first) = packet.first_mut() else { return 0 };
                *first = self.first_octet(OPCODE_DATA_V1);
                HEADER_V1
            }
        }
    }

    /// First byte and peer id as one number: a processor waits where bytes that were written singly are read at once.
    #[inline]
    fn first_word(&self) -> Option<u32> {
        let peer_id = self.peer_id? & 0x00FF_FFFF;
        Some(u32::from(self.first_octet(OPCODE_DATA_V2)) << 24 | peer_id)
    }

    #[inline]
    fn first_octet(&self, opcode: u8) -> u8 {
        opcode << 3 | (self.key_id & 7)
    }

    /// The bytes of a packet that are authenticated but not encrypted.
    #[must_use]
    pub fn additional_data(&self) -> std::ops::Range<usize> {
        match self.peer_id {
            Some(_) => 0..HEADER_V2 + PACKET_ID_OCTETS,
            None => HEADER_V1..HEADER_V1 + PACKET_ID_OCTETS,
        }
    }
}

/// Where the parts of a whole data packet are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DataPacket {
    /// Its header.
    pub header: DataHeader,
    /// Not authentic until the tag was checked.
    pub packet_id: u32,
    /// Offset of the tag.
    pub tag_at: usize,
    /// Offset of the ciphertext, which goes to the end and is not empty.
    pub text_at: usize,
}

impl DataPacket {
    /// Find the parts.
    ///
    /// # Errors
    /// As [`DataHeader::parse`]; [`PacketError::Short`] also where no byte of ciphertext is there.
    pub fn parse(packet: &[u8]) -> Result<Self, PacketError> {
        let header = DataHeader::parse(packet)?;
        let at = header.octets();
        let text_at = header.overhead();
        match packet.get(at..).and_then(|rest| rest.first_chunk::<PACKET_ID_OCTETS>()) {
            Some(&number) if packet.len() > text_at => {
                Ok(Self { header, packet_id: u32::from_be_bytes(number), tag_at: at + PACKET_ID_OCTETS, text_at })
            }
            _ => Err(PacketError::Short(packet.len())),
        }
    }
}

/// `packet id | implicit IV`.
#[must_use]
pub fn nonce(packet_id: u32, implicit_iv: &[u8; IMPLICIT_IV_OCTETS]) -> [u8; NONCE_OCTETS] {
    let [a, b, c, d] = packet_id.to_be_bytes();
    let [e, f, g, h, i, j, k, l] = *implicit_iv;
    [a, b, c, d, e, f, g, h, i, j, k, l]
}

/// Whether a frame begins with one of the two magics: peers would take it for housekeeping, and end their session at
/// its word.
///
/// The first 8 bytes decide nearly always: no station has such an address.
#[must_use]
#[inline]
pub fn begins_as_housekeeping(frame: &[u8]) -> bool {
    match frame.first_chunk::<8>() {
        Some(&PING_HEAD | &OCC_HEAD) => frame.starts_with(&PING) || frame.starts_with(&OCC_MAGIC),
        _ => false,
    }
}

/// What an opened payload is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Payload {
    /// An Ethernet frame of at least 14 bytes.
    Frame,
    /// A keepalive ping.
    Ping,
    /// An OCC message (its body unchecked), for the control plane.
    Occ,
    /// Shorter than an Ethernet header: drop as `short_frame`.
    Short,
}

/// Tell frames from housekeeping.
#[must_use]
pub fn classify(payload: &[u8]) -> Payload {
    if payload.len() < LEAST_FRAME_OCTETS {
        return Payload::Short;
    }
    match payload.first_chunk::<16>() {
        Some(&OCC_MAGIC) => Payload::Occ,
        Some(&PING) if payload.len() == PING.len() => Payload::Ping,
        _ => Payload::Frame,
    }
}

/// Bytes of a notice.
pub const NOTICE_OCTETS: usize = 20;
const NOTICE_MARK: [u8; 16] =
    [0xb2, 0x0c, 0x0d, 0x19, 0x3b, 0x02, 0x58, 0x9c, 0xad, 0x02, 0x4c, 0x51, 0x5a, 0xbd, 0x2c, 0x74];

/// A server's notice that it knows no session for a data packet with this key id; see
/// `bridged/protocol/packets/unknown_session.py`.
#[must_use]
pub fn unknown_session_notice(key_id: u8) -> [u8; NOTICE_OCTETS] {
    let mut notice = [0xff; NOTICE_OCTETS];
    notice[0] = (OPCODE_DATA_V2 << 3) | ((key_id + 4) & 7);
    notice[4..].copy_from_slice(&NOTICE_MARK);
    notice
}

/// Whether a data packet of an unknown key is such a notice.
#[must_use]
pub fn is_unknown_session_notice(packet: &[u8]) -> bool {
    packet.len() == NOTICE_OCTETS && packet[4..] == NOTICE_MARK
}

/// How packets that arrived together lie: `size` bytes each (the last may be shorter), `gap` bytes between two of them,
/// `length` from the first byte to the last.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PacketRun {
    /// Bytes in all.
    pub length: usize,
    /// Bytes of each.
    pub size: usize,
    /// Bytes between two.
    pub gap: usize,
}

impl PacketRun {
    /// One packet, or equal ones end to end.
    #[must_use]
    pub fn of(length: usize, size: usize) -> Self {
        Self { length, size: size.max(1), gap: 0 }
    }

    /// How many.
    #[must_use]
    pub fn packets(&self) -> usize {
        (self.length + self.gap).div_ceil(self.size + self.gap)
    }

    /// Where each begins and ends.
    pub fn spans(self) -> impl Iterator<Item = core::ops::Range<usize>> {
        (0..self.length).step_by(self.size + self.gap).map(move |at| at..self.length.min(at + self.size))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_as_they_were_written() {
        for peer_id in [None, Some(0), Some(0x01_0203), Some(NO_PEER_ID)] {
            for key_id in 0..8 {
                let header = DataHeader { key_id, peer_id };
                let mut packet = [0xaa; 32];
                let written = header.write(0xfeed_beef, &mut packet);
                assert_eq!(written, header.octets() + 4);
                let found = DataPacket::parse(&packet).unwrap();
                assert_eq!(found.header, header);
                assert_eq!(found.packet_id, 0xfeed_beef);
                assert_eq!((found.tag_at, found.text_at), (written, written + 16));
                assert_eq!(header.additional_data().end, written);
            }
        }
        assert_eq!(DataHeader { key_id: 0, peer_id: Some(1) }.additional_data().start, 0);
        assert_eq!(DataHeader { key_id: 0, peer_id: None }.additional_data().start, 1);
    }

    #[test]
    fn a_packet_without_payload_is_short() {
        let mut packet = [0; 25];
        DataHeader { key_id: 1, peer_id: Some(7) }.write(1, &mut packet);
        assert_eq!(DataPacket::parse(&packet[..24]), Err(PacketError::Short(24)));
        assert!(DataPacket::parse(&packet).is_ok());
        assert_eq!(DataHeader::parse(&packet[..3]), Err(PacketError::Short(3)));
        assert_eq!(DataHeader::parse(&[]).unwrap_err().code(), "short_packet");
        assert_eq!(DataHeader::parse(&[5 << 3]).unwrap_err().code(), "bad_opcode");
        assert_eq!(DataHeader { key_id: 1, peer_id: None }.write(1, &mut [0; 4]), 0);
    }

    #[test]
    fn a_nonce_is_the_packet_id_and_the_implicit_iv() {
        assert_eq!(nonce(0x0102_0304, &[5, 6, 7, 8, 9, 10, 11, 12]), [1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12]);
    }

    #[test]
    fn housekeeping_is_told_from_frames() {
        let mut long = PING.to_vec();
        long.push(0);
        let mut occ = OCC_MAGIC.to_vec();
        assert_eq!(classify(&PING), Payload::Ping);
        assert_eq!(classify(&long), Payload::Frame);
        assert_eq!(classify(&occ), Payload::Occ);
        occ.push(6);
        assert_eq!(classify(&occ), Payload::Occ);
        assert_eq!(classify(&[0; 14]), Payload::Frame);
        assert_eq!(classify(&[0; 13]), Payload::Short);
    }

    #[test]
    fn a_frame_that_begins_with_a_whole_magic_is_known_and_no_other() {
        for magic in [PING, OCC_MAGIC] {
            assert!(begins_as_housekeeping(&magic));
            assert!(begins_as_housekeeping(&[&magic[..], &[0; 44]].concat()));
            assert!(!begins_as_housekeeping(&magic[..15]));
            for at in 0..16 {
                let mut other = [&magic[..], &[0; 44]].concat();
                other[at] ^= 1;
                assert!(!begins_as_housekeeping(&other), "{at}");
            }
        }
        assert!(!begins_as_housekeeping(&[]));
    }

    #[test]
    fn only_data_opcodes_are_data() {
        let data: Vec<u8> = (0..=255u8).filter(|&first| is_data(&[first])).collect();
        assert_eq!(data, (48..56).chain(72..80).collect::<Vec<u8>>());
        assert!(!is_data(&[]));
    }
}
