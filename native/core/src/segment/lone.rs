//! A TCP segment that came alone, and is larger than its way bears, as a super-frame of one: it can be cut then.
//!
//! Source: RFC 9293, 3.7 and 3.8 (a receiver sees bytes, not segments); RFC 6864, 4.1 (identification).

use super::SuperFrame;
use crate::checksum::{is_valid, minus_word, sum, word};
use crate::headers::{
    network, u16_at, u32_at, u8_at, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_DONT_FRAGMENT, IPV4_OCTETS, IPV6_OCTETS,
    PROTOCOL_TCP, TCP_ACK, TCP_CWR, TCP_ECE, TCP_FIN, TCP_PSH,
};

/// Version 4, no options.
const PLAIN_IPV4: u8 = 0x45;
const TCP_OCTETS: usize = 20;
const CHECKSUM_AT: usize = 16;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_SACK: u8 = 5;
const OPTION_TIMESTAMPS: u8 = 8;

impl<'a> SuperFrame<'a> {
    /// A plain frame with its checksums complete as a super-frame with one segment; None where cutting it would change
    /// more than where segments end, so that it has to go as it is:
    ///
    /// - anything but TCP right behind IPv4 without options or IPv6, up to two VLAN tags before it; fragments; padding;
    /// - IPv4 that may be fragmented (no DF): further identifications are not ours to use;
    /// - SYN, RST, URG, reserved bits, ECE with CWR (a counter of Accurate ECN);
    /// - options other than timestamps and SACK: a signature (MD5, AO) or a mapping (MPTCP) is of the whole segment;
    /// - a wrong checksum of IPv4 or TCP, which has to stay wrong.
    #[must_use]
    pub fn of_segment(frame: &'a [u8]) -> Option<Self> {
        let (network, is_v4) = plain_network(frame)?;
        let start = network + if is_v4 { IPV4_OCTETS } else { IPV6_OCTETS };
        let header_len = start + plain_tcp_octets(frame, start)?;
        let payload = frame.len().checked_sub(header_len).filter(|octets| *octets > 0)?;
        let addresses = network + if is_v4 { 12 } else { 8 };
        // The pseudo-header but for the length, which is another one for each segment.
        let pseudo = sum(frame.get(addresses..start)?) + word(u16::from(PROTOCOL_TCP));
        let header = sum(frame.get(start..header_len)?);
        let octets = (frame.len() - start) as u16;
        if !is_valid(pseudo + header + sum(frame.get(header_len..)?) + word(octets)) {
            return None;
        }
        let offset_flags = u16_at(frame, start + 12);
        let mut network_sum = 0;
        if is_v4 {
            let header = sum(frame.get(network..start)?);
            if !is_valid(header) {
                return None;
            }
            network_sum = header
                + minus_word(u16_at(frame, network + 2))
                + minus_word(u16_at(frame, network + 4))
                + minus_word(u16_at(frame, network + 10));
        }
        let differing = minus_word(u16_at(frame, start + 4))
            + minus_word(u16_at(frame, start + 6))
            + minus_word(offset_flags)
            + minus_word(u16_at(frame, start + CHECKSUM_AT));
        Some(Self {
            frame,
            network,
            start,
            header_len,
            gso_size: payload,
            is_v4,
            is_tcp: true,
            identity: u16_at(frame, network + 4),
            sequence: u32_at(frame, start + 4),
            offset_flags,
            network_sum,
            transport_sum: pseudo + header + differing,
        })
    }
}

/// Where an IP header begins that TCP follows at once and that counts the whole frame, and whether it is IPv4.
fn plain_network(frame: &[u8]) -> Option<(usize, bool)> {
    let (at, ethertype) = network(frame);
    let octets = frame.len().checked_sub(at)?;
    let is_plain = match ethertype {
        ETHERTYPE_IPV4 => {
            u8_at(frame, at) == PLAIN_IPV4
                && usize::from(u16_at(frame, at + 2)) == octets
                && u16_at(frame, at + 6) == IPV4_DONT_FRAGMENT
                && u8_at(frame, at + 9) == PROTOCOL_TCP
        }
        ETHERTYPE_IPV6 => {
            u8_at(frame, at) >> 4 == 6
                && usize::from(u16_at(frame, at + 4)) + IPV6_OCTETS == octets
                && u8_at(frame, at + 6) == PROTOCOL_TCP
        }
        _ => false,
    };
    is_plain.then_some((at, ethertype == ETHERTYPE_IPV4))
}

/// Bytes of the TCP header at `start`, where nothing in it is of the segment as a whole.
fn plain_tcp_octets(frame: &[u8], start: usize) -> Option<usize> {
    let offset = u8_at(frame, start + 12);
    let flags = u8_at(frame, start + 13);
    let octets = usize::from(offset >> 4) * 4;
    let is_counter = flags & (TCP_ECE | TCP_CWR) == TCP_ECE | TCP_CWR;
    let is_plain = flags & !(TCP_PSH | TCP_FIN | TCP_ECE | TCP_CWR) == TCP_ACK && offset & 0x0F == 0 && !is_counter;
    let options = frame.get(start + TCP_OCTETS..start + octets)?;
    (is_plain && may_be_repeated(options)).then_some(octets)
}

/// Whether options mean the same in each of several segments.
fn may_be_repeated(options: &[u8]) -> bool {
    let mut at = 0;
    while at < options.len() {
        match u8_at(options, at) {
            OPTION_END => return true,
            OPTION_NOTHING => at += 1,
            OPTION_SACK | OPTION_TIMESTAMPS => {
                let length = usize::from(u8_at(options, at + 1));
                if length < 2 || at + length > options.len() {
                    return false;
                }
                at += length;
            }
            _ => return false,
        }
    }
    true
}
