//! Super-frames from the TAP become frames: TCP and UDP segmentation, and checksums left to us.
//!
//! Source: Linux `Documentation/networking/segmentation-offloads.rst` and `checksum-offloads.rst`; the rules are those
//! of the kernel's own `tcp_gso_segment` and `__udp_gso_segment`, so that a receiver cannot tell them apart.
//! Everything that segments share is worked out once, in [`SuperFrame::parse`]; [`SuperFrame::write`] copies payload
//! and sums it on the way.

mod lone;

use std::cmp::Ordering;

use thiserror::Error;

use crate::checksum::{copy_and_sum, field, minus_word, sum, udp_field, word, Sum};
use crate::headers::{
    network, put, u16_at, u32_at, u8_at, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_OCTETS, IPV6_OCTETS, TCP_CWR, TCP_FIN,
    TCP_PSH,
};
use crate::vnet::{VnetHeader, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4};

/// Why a read of the TAP is not what its virtio-net header says; the frame is dropped as `bad_length`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum SegmentError {
    /// `gso_type` is none of TCPV4, TCPV6, UDP_L4 (GSO_NONE included: ask [`VnetHeader::is_super`] first).
    #[error("super-frames of type {0} were not offered")]
    Kind(u8),
    /// `gso_size` is 0.
    #[error("segments of 0 bytes")]
    Size,
    /// The EtherType is not that of IPv4 or IPv6.
    #[error("a super-frame of EtherType {0:#06x}")]
    EtherType(u16),
    /// A header begins or ends outside the frame, or overlaps the one before.
    #[error("the headers do not fit the frame")]
    Headers,
    /// The checksum field is outside the frame.
    #[error("the checksum field is outside the frame")]
    ChecksumField,
    /// No byte behind the headers.
    #[error("a super-frame without payload")]
    Empty,
}

impl SegmentError {
    /// The drop reason of metrics.
    #[must_use]
    pub fn code(&self) -> &'static str {
        "bad_length"
    }
}

/// How a super-frame is cut: all frames but the last have `first_len` bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cut {
    /// Frames, at least 1.
    pub count: usize,
    /// Bytes of each frame but the last (of the only one, where it is alone).
    pub first_len: usize,
    /// Bytes of the last frame, at most `first_len`.
    pub last_len: usize,
    /// Payload bytes of each frame but the last.
    pub payload: usize,
}

impl Cut {
    /// Bytes of frame `index` (0 behind the last).
    #[must_use]
    #[inline]
    pub fn len_of(&self, index: usize) -> usize {
        match (index + 1).cmp(&self.count) {
            Ordering::Less => self.first_len,
            Ordering::Equal => self.last_len,
            Ordering::Greater => 0,
        }
    }

    /// Bytes of all frames together.
    #[must_use]
    #[inline]
    pub fn total(&self) -> usize {
        self.count.saturating_sub(1) * self.first_len + self.last_len
    }
}

/// A super-frame whose headers were found sound, and what its segments share.
#[derive(Debug, Clone)]
pub struct SuperFrame<'a> {
    frame: &'a [u8],
    network: usize,
    /// Where the TCP or UDP header begins.
    start: usize,
    /// Bytes of all headers.
    header_len: usize,
    gso_size: usize,
    is_v4: bool,
    is_tcp: bool,
    identity: u16,
    sequence: u32,
    /// Data offset, and flags in the low byte.
    offset_flags: u16,
    /// Of the IPv4 header without length, identification and checksum.
    network_sum: Sum,
    /// Of pseudo-header and transport header without lengths, checksum, and what else differs between segments.
    transport_sum: Sum,
}

impl<'a> SuperFrame<'a> {
    /// Check the headers and work out what all segments share. `frame` is what stands behind the virtio-net header.
    ///
    /// # Errors
    /// [`SegmentError`]; nothing of the frame can be used then.
    pub fn parse(vnet: &VnetHeader, frame: &'a [u8]) -> Result<Self, SegmentError> {
        let kind = vnet.kind();
        let is_tcp = match kind {
            GSO_TCPV4 | GSO_TCPV6 => true,
            GSO_UDP_L4 => false,
            _ => return Err(SegmentError::Kind(kind)),
        };
        if vnet.gso_size == 0 {
            return Err(SegmentError::Size);
        }
        let start = usize::from(vnet.csum_start);
        let (network, is_v4) = checked_network(frame, start)?;
        let header_len = start + transport_octets(frame, start, is_tcp)?;
        if header_len >= frame.len() {
            return Err(if header_len > frame.len() { SegmentError::Headers } else { SegmentError::Empty });
        }
        let gso_size = usize::from(vnet.gso_size);
        // What the length fields of the largest segment must hold.
        let counted = header_len - network - if is_v4 { 0 } else { IPV6_OCTETS };
        if counted + gso_size.min(frame.len() - header_len) > usize::from(u16::MAX) {
            return Err(SegmentError::Size);
        }
        let mut head = Self {
            frame,
            network,
            start,
            header_len,
            gso_size,
            is_v4,
            is_tcp,
            identity: u16_at(frame, network + 4),
            sequence: u32_at(frame, start + 4),
            offset_flags: u16_at(frame, start + 12),
            network_sum: 0,
            transport_sum: 0,
        };
        head.add_up();
        Ok(head)
    }

    /// Work out both sums.
    fn add_up(&mut self) {
        let header = self.frame.get(self.start..self.header_len).unwrap_or(&[]);
        let mut total = sum(header);
        if self.is_tcp {
            total += minus_word(u16_at(header, 4)) + minus_word(u16_at(header, 6));
            total += minus_word(self.offset_flags);
            // The checksum field stays in: the kernel left the pseudo-header's sum there, length included.
        } else {
            total += minus_word(u16_at(header, 4));
        }
        let octets = (self.frame.len() - self.start) as u32;
        self.transport_sum = total + minus_word((octets >> 16) as u16) + minus_word(octets as u16);
        if self.is_v4 {
            let header = self.frame.get(self.network..self.start).unwrap_or(&[]);
            self.network_sum = sum(header)
                + minus_word(u16_at(header, 2))
                + minus_word(u16_at(header, 4))
                + minus_word(u16_at(header, 10));
        }
    }

    /// The headers' bytes, Ethernet to TCP or UDP.
    #[must_use]
    pub fn header_len(&self) -> usize {
        self.header_len
    }

    /// TCP (UDP otherwise).
    #[must_use]
    pub fn is_tcp(&self) -> bool {
        self.is_tcp
    }

    /// How to cut it so that no frame is longer than `fit` bytes (0: any length), headers included.
    ///
    /// TCP is cut to `min(gso_size, fit - headers)` ("MSS fitting"). UDP keeps `gso_size`, since datagrams have a
    /// meaning; so does TCP where `fit` leaves less than [`LEAST_FITTED_PAYLOAD`]: look at `first_len`.
    #[must_use]
    pub fn cut(&self, fit: usize) -> Cut {
        let room = fit.saturating_sub(self.header_len);
        let payload = if self.is_tcp && room >= LEAST_FITTED_PAYLOAD { self.gso_size.min(room) } else { self.gso_size };
        let octets = self.frame.len() - self.header_len;
        let count = octets.div_ceil(payload);
        Cut {
            count,
            first_len: self.header_len + payload.min(octets),
            last_len: self.header_len + octets - (count - 1) * payload,
            payload,
        }
    }

    /// Write frame `index` of `cut` to the start of `out`; how many bytes that were.
    ///
    /// 0, with `out` untouched, where there is no such frame or no room for it.
    #[inline]
    pub fn write(&self, cut: &Cut, index: usize, out: &mut [u8]) -> usize {
        let length = cut.len_of(index);
        let from = self.header_len + index * cut.payload;
        let Some(payload) = length.checked_sub(self.header_len) else { return 0 };
        let (Some(header), Some(piece)) = (self.frame.get(..self.header_len), self.frame.get(from..from + payload))
        else {
            return 0;
        };
        let Some((head, body)) = out.get_mut(..length).and_then(|room| room.split_at_mut_checked(self.header_len))
        else {
            return 0;
        };
        head.copy_from_slice(header);
        let total = self.transport_sum + copy_and_sum(piece, body);
        self.write_network(head, payload, index);
        let transport = (self.header_len - self.start + payload) as u16;
        if self.is_tcp {
            self.write_tcp(head, cut, index, total + word(transport));
        } else {
            put(head, self.start + 4, &transport.to_be_bytes());
            // In the pseudo-header and in the header.
            put(head, self.start + UDP_CHECKSUM_AT, &udp_field(total + 2 * word(transport)));
        }
        length
    }

    /// Length, identification (one more than that of the segment before) and checksum of the IP header.
    #[inline]
    fn write_network(&self, head: &mut [u8], payload: usize, index: usize) {
        let octets = self.header_len - self.network + payload;
        if self.is_v4 {
            let identity = self.identity.wrapping_add(index as u16);
            put(head, self.network + 2, &(octets as u16).to_be_bytes());
            put(head, self.network + 4, &identity.to_be_bytes());
            let total = self.network_sum + word(octets as u16) + word(identity);
            put(head, self.network + 10, &field(total));
        } else {
            put(head, self.network + 4, &((octets - IPV6_OCTETS) as u16).to_be_bytes());
        }
    }

    /// Sequence number, flags and checksum.
    #[inline]
    fn write_tcp(&self, head: &mut [u8], cut: &Cut, index: usize, total: Sum) {
        let sequence = self.sequence.wrapping_add((index * cut.payload) as u32);
        // PSH and FIN belong to the end of the data, CWR to its beginning.
        let mut offset_flags = self.offset_flags;
        if index + 1 < cut.count {
            offset_flags &= !u16::from(TCP_FIN | TCP_PSH);
        }
        if index > 0 {
            offset_flags &= !u16::from(TCP_CWR);
        }
        put(head, self.start + 4, &sequence.to_be_bytes());
        put(head, self.start + 12, &offset_flags.to_be_bytes());
        let total = total + word((sequence >> 16) as u16) + word(sequence as u16) + word(offset_flags);
        put(head, self.start + TCP_CHECKSUM_AT, &field(total));
    }
}

/// Less payload than this is not worth a TCP segment of its own: a path MTU that leaves so little is an error.
pub const LEAST_FITTED_PAYLOAD: usize = 64;

const TCP_OCTETS: usize = 20;
const UDP_OCTETS: usize = 8;
const TCP_CHECKSUM_AT: usize = 16;
const UDP_CHECKSUM_AT: usize = 6;

/// Where the network header begins, and whether it is IPv4; it must end before `start`.
fn checked_network(frame: &[u8], start: usize) -> Result<(usize, bool), SegmentError> {
    let (at, ethertype) = network(frame);
    let least = match ethertype {
        ETHERTYPE_IPV4 => IPV4_OCTETS,
        ETHERTYPE_IPV6 => IPV6_OCTETS,
        other => return Err(SegmentError::EtherType(other)),
    };
    if start < at + least || start > frame.len() {
        return Err(SegmentError::Headers);
    }
    Ok((at, ethertype == ETHERTYPE_IPV4))
}

/// Bytes of the TCP or UDP header at `start`.
fn transport_octets(frame: &[u8], start: usize, is_tcp: bool) -> Result<usize, SegmentError> {
    if !is_tcp {
        return Ok(UDP_OCTETS);
    }
    let octets = usize::from(u8_at(frame, start + 12) >> 4) * 4;
    if octets < TCP_OCTETS {
        Err(SegmentError::Headers)
    } else {
        Ok(octets)
    }
}

/// Where a frame's checksum begins to count, and where it stands.
fn checksum_places(vnet: &VnetHeader, octets: usize) -> Result<(usize, usize), SegmentError> {
    let start = usize::from(vnet.csum_start);
    let at = start + usize::from(vnet.csum_offset);
    if at + 2 > octets {
        Err(SegmentError::ChecksumField)
    } else {
        Ok((start, at))
    }
}

/// The bytes for the field; in UDP, which is known by the field's offset, zero stands for "none".
fn completed(vnet: &VnetHeader, total: Sum) -> [u8; 2] {
    if usize::from(vnet.csum_offset) == UDP_CHECKSUM_AT {
        udp_field(total)
    } else {
        field(total)
    }
}

/// Replace the partial sum that `NEEDS_CSUM` leaves in the checksum field by the checksum, in place.
///
/// Does nothing where `vnet` does not ask for it. In UDP (field at offset 6) a zero is written as FFFF.
///
/// # Errors
/// [`SegmentError::ChecksumField`].
pub fn complete_checksum(vnet: &VnetHeader, frame: &mut [u8]) -> Result<(), SegmentError> {
    if vnet.needs_checksum() {
        let (start, at) = checksum_places(vnet, frame.len())?;
        let total = sum(frame.get(start..).unwrap_or(&[]));
        put(frame, at, &completed(vnet, total));
    }
    Ok(())
}

/// Copy a frame that is no super-frame to the start of `out`, its checksum completed on the way; bytes written.
///
/// # Errors
/// As [`complete_checksum`]; [`SegmentError::Headers`] where `out` is too small.
pub fn copy_complete(vnet: &VnetHeader, frame: &[u8], out: &mut [u8]) -> Result<usize, SegmentError> {
    let out = out.get_mut(..frame.len()).ok_or(SegmentError::Headers)?;
    if !vnet.needs_checksum() {
        out.copy_from_slice(frame);
        return Ok(frame.len());
    }
    let (start, at) = checksum_places(vnet, frame.len())?;
    let (head, body) = frame.split_at_checked(start).ok_or(SegmentError::ChecksumField)?;
    let (head_out, body_out) = out.split_at_mut_checked(start).ok_or(SegmentError::ChecksumField)?;
    head_out.copy_from_slice(head);
    let total = copy_and_sum(body, body_out);
    put(out, at, &completed(vnet, total));
    Ok(frame.len())
}
