//! The virtio-net header that stands before each frame of a TAP with `IFF_VNET_HDR`.
//!
//! Source: VIRTIO 1.2, 5.1.6; Linux `include/uapi/linux/virtio_net.h` (native byte order, as TUN uses it).

use thiserror::Error;

/// Flag: the checksum at `csum_start + csum_offset` is a partial sum, to be completed over the rest of the frame.
pub const NEEDS_CSUM: u8 = 1;

/// Not a super-frame.
pub const GSO_NONE: u8 = 0;
/// TCP over IPv4.
pub const GSO_TCPV4: u8 = 1;
/// TCP over IPv6.
pub const GSO_TCPV6: u8 = 4;
/// UDP segmentation (USO), IPv4 and IPv6.
pub const GSO_UDP_L4: u8 = 5;
/// Bit beside the type: the super-frame's first segment has CWR set.
pub const GSO_ECN: u8 = 0x80;

/// Bytes of a header without the buffer count.
pub const SHORT_OCTETS: usize = 10;
/// Bytes of a header with the buffer count (`num_buffers`), which means nothing on a TAP.
pub const LONG_OCTETS: usize = 12;

/// Fewer bytes than the header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("{octets} bytes hold no virtio-net header")]
pub struct ShortHeader {
    /// How many there were.
    pub octets: usize,
}

/// What the kernel says of a frame. Offsets and sizes are bytes from the start of the frame.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VnetHeader {
    /// [`NEEDS_CSUM`], or 2 (the kernel has checked it).
    pub flags: u8,
    /// `GSO_*`, with [`GSO_ECN`] as the kernel gave it.
    pub gso_type: u8,
    /// Bytes of all headers of a super-frame (a hint: do not trust it).
    pub hdr_len: u16,
    /// Payload bytes of one segment.
    pub gso_size: u16,
    /// Where the transport header begins.
    pub csum_start: u16,
    /// From `csum_start` to the checksum field.
    pub csum_offset: u16,
}

impl VnetHeader {
    /// Read the header at the start of `packet` (10 bytes; the caller skips 12 where the TAP says so).
    ///
    /// # Errors
    /// [`ShortHeader`]: fewer than 10 bytes.
    pub fn parse(packet: &[u8]) -> Result<Self, ShortHeader> {
        let Some(octets) = packet.first_chunk::<SHORT_OCTETS>() else {
            return Err(ShortHeader { octets: packet.len() });
        };
        let [flags, gso_type, h0, h1, s0, s1, c0, c1, o0, o1] = *octets;
        Ok(Self {
            flags,
            gso_type,
            hdr_len: u16::from_ne_bytes([h0, h1]),
            gso_size: u16::from_ne_bytes([s0, s1]),
            csum_start: u16::from_ne_bytes([c0, c1]),
            csum_offset: u16::from_ne_bytes([o0, o1]),
        })
    }

    /// The header's bytes; write the first 10 or all 12, as the TAP wants it.
    #[must_use]
    pub fn serialize(&self) -> [u8; LONG_OCTETS] {
        let (h, s) = (self.hdr_len.to_ne_bytes(), self.gso_size.to_ne_bytes());
        let (c, o) = (self.csum_start.to_ne_bytes(), self.csum_offset.to_ne_bytes());
        [self.flags, self.gso_type, h[0], h[1], s[0], s[1], c[0], c[1], o[0], o[1], 0, 0]
    }

    /// The checksum is left to us.
    #[must_use]
    pub fn needs_checksum(&self) -> bool {
        self.flags & NEEDS_CSUM != 0
    }

    /// `GSO_*` without the ECN bit.
    #[must_use]
    pub fn kind(&self) -> u8 {
        self.gso_type & !GSO_ECN
    }

    /// The frame behind it is a super-frame.
    #[must_use]
    pub fn is_super(&self) -> bool {
        self.kind() != GSO_NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_read_as_it_was_written() {
        let header = VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: GSO_TCPV4 | GSO_ECN,
            hdr_len: 66,
            gso_size: 1448,
            csum_start: 34,
            csum_offset: 16,
        };
        let octets = header.serialize();
        assert_eq!(VnetHeader::parse(&octets[..SHORT_OCTETS]), Ok(header));
        assert_eq!(VnetHeader::parse(&octets), Ok(header));
        assert_eq!(header.kind(), GSO_TCPV4);
        assert!(header.is_super() && header.needs_checksum());
    }

    #[test]
    fn nine_octets_hold_no_header() {
        assert_eq!(VnetHeader::parse(&[0; 9]), Err(ShortHeader { octets: 9 }));
    }
}
