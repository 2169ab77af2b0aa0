//! The answer to a packet that is too large for the path and must not be cut, on behalf of its destination.
//!
//! Source: RFC 792, RFC 1191 and RFC 1812, 4.3.2 (ICMP type 3, code 4); RFC 4443, 2.4 and 3.2 (ICMPv6 type 2).
//! Takes any bytes and never panics.

use crate::checksum::{field, sum, word};
use crate::headers::{
    network, put, u16_at, u8_at, ETHERTYPE_IPV4, ETHERTYPE_IPV6, IPV4_DONT_FRAGMENT, IPV4_OCTETS, IPV6_OCTETS,
    MAX_TAGS, PROTOCOL_ICMPV6,
};

/// Bytes of the longest answer: the smallest packet that every IPv6 link carries, with its Ethernet header and tags.
pub const ANSWER_OCTETS: usize = IPV6_LEAST_MTU + 14 + 4 * MAX_TAGS;

const IPV6_LEAST_MTU: usize = 1280;
/// Of the smallest packet that every IPv4 host takes whole: an ICMP error is no longer.
const IPV4_ERROR_OCTETS: usize = 576;
/// Of ICMP and ICMPv6 in front of what is quoted.
const ICMP_OCTETS: usize = 8;
const OFFSET_MASK: u16 = 0x1FFF;
const PROTOCOL_ICMP: u8 = 1;
const IPV6_FRAGMENT: u8 = 44;
/// Extension headers that are looked behind.
const EXTENSIONS_MOST: usize = 8;

/// Write the answer to a frame of which `fit` bytes would cross, and return its length.
///
/// None: it gets no answer, and travels as any other. That is what may be cut on the way, goes to a group, is an ICMP
/// error itself or a later fragment, or is as small as its protocol allows.
#[must_use]
#[cold]
pub fn answer(frame: &[u8], fit: usize, out: &mut [u8; ANSWER_OCTETS]) -> Option<usize> {
    let (at, ethertype) = network(frame);
    if (u8_at(frame, 0) | u8_at(frame, 6)) & 1 != 0 || frame.len() <= at {
        return None;
    }
    let mtu = fit.checked_sub(at)?;
    let length = match ethertype {
        ETHERTYPE_IPV4 => answer_ipv4(frame.get(at..)?, mtu, out.get_mut(at..)?),
        ETHERTYPE_IPV6 => answer_ipv6(frame.get(at..)?, mtu.max(IPV6_LEAST_MTU), out.get_mut(at..)?),
        _ => None,
    }?;
    put(out, 0, frame.get(6..12)?);
    put(out, 6, frame.get(..6)?);
    put(out, 12, frame.get(12..at)?);
    Some(at + length)
}

fn answer_ipv4(packet: &[u8], mtu: usize, out: &mut [u8]) -> Option<usize> {
    let header = usize::from(u8_at(packet, 0) & 0x0F) * 4;
    let total = usize::from(u16_at(packet, 2));
    let flags = u16_at(packet, 6);
    let is_fit = total <= mtu || total > packet.len() || u8_at(packet, 0) >> 4 != 4 || header < IPV4_OCTETS;
    if is_fit || flags & IPV4_DONT_FRAGMENT == 0 || flags & OFFSET_MASK != 0 {
        return None;
    }
    if u8_at(packet, 9) == PROTOCOL_ICMP && matches!(u8_at(packet, header), 3 | 4 | 5 | 11 | 12) {
        return None;
    }
    // 0, 127, groups and broadcasts are nobody's address.
    if [12, 16].into_iter().any(|address| matches!(u8_at(packet, address), 0 | 127 | 224..)) {
        return None;
    }
    let quoted = packet.get(..total.min(IPV4_ERROR_OCTETS - IPV4_OCTETS - ICMP_OCTETS))?;
    let length = IPV4_OCTETS + ICMP_OCTETS + quoted.len();
    let head = out.get_mut(..length)?;
    head[..IPV4_OCTETS + ICMP_OCTETS].fill(0);
    // Precedence 6, as RFC 1812 has it for errors.
    put(head, 0, &[0x45, 0xC0]);
    put(head, 2, &(length as u16).to_be_bytes());
    put(head, 8, &[64, PROTOCOL_ICMP]);
    put(head, 12, packet.get(16..20)?);
    put(head, 16, packet.get(12..16)?);
    let checksum = field(sum(&head[..IPV4_OCTETS]));
    put(head, 10, &checksum);
    let message = &mut head[IPV4_OCTETS..];
    put(message, 0, &[3, 4]);
    put(message, 6, &u16::try_from(mtu).unwrap_or(u16::MAX).to_be_bytes());
    put(message, ICMP_OCTETS, quoted);
    let checksum = field(sum(message));
    put(message, 2, &checksum);
    Some(length)
}

fn answer_ipv6(packet: &[u8], mtu: usize, out: &mut [u8]) -> Option<usize> {
    let total = IPV6_OCTETS + usize::from(u16_at(packet, 4));
    if total <= mtu || total > packet.len() || u8_at(packet, 0) >> 4 != 6 || is_error_or_part(packet) {
        return None;
    }
    // Neither the unspecified address nor a group can be told anything, or have said it.
    if u8_at(packet, 8) == 0xFF || u8_at(packet, 24) == 0xFF || packet.get(8..24)?.iter().all(|&octet| octet == 0) {
        return None;
    }
    let quoted = packet.get(..total.min(IPV6_LEAST_MTU - IPV6_OCTETS - ICMP_OCTETS))?;
    let payload = ICMP_OCTETS + quoted.len();
    let head = out.get_mut(..IPV6_OCTETS + payload)?;
    head[..IPV6_OCTETS + ICMP_OCTETS].fill(0);
    put(head, 0, &[0x60]);
    put(head, 4, &(payload as u16).to_be_bytes());
    put(head, 6, &[PROTOCOL_ICMPV6, 64]);
    put(head, 8, packet.get(24..40)?);
    put(head, 24, packet.get(8..24)?);
    let pseudo = sum(&head[8..40]) + word(payload as u16) + word(u16::from(PROTOCOL_ICMPV6));
    let message = &mut head[IPV6_OCTETS..];
    put(message, 0, &[2, 0]);
    put(message, 4, &(mtu as u32).to_be_bytes());
    put(message, ICMP_OCTETS, quoted);
    let checksum = field(pseudo + sum(message));
    put(message, 2, &checksum);
    Some(IPV6_OCTETS + payload)
}

/// Whether an IPv6 packet is an ICMPv6 error or a redirect, or a fragment other than the first.
fn is_error_or_part(packet: &[u8]) -> bool {
    let (mut next, mut at) = (u8_at(packet, 6), IPV6_OCTETS);
    for _ in 0..EXTENSIONS_MOST {
        match next {
            0 | 43 | 60 => {
                next = u8_at(packet, at);
                at += (usize::from(u8_at(packet, at + 1)) + 1) * 8;
            }
            IPV6_FRAGMENT if u16_at(packet, at + 2) >> 3 != 0 => return true,
            IPV6_FRAGMENT => {
                next = u8_at(packet, at);
                at += 8;
            }
            PROTOCOL_ICMPV6 => return matches!(u8_at(packet, at), 0..=127 | 137),
            _ => return false,
        }
    }
    // So many headers are nobody's who wants an answer.
    true
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn no_bytes_panic_and_an_answer_is_never_longer_than_its_cause(
            mut frame in proptest::collection::vec(any::<u8>(), 0..2000),
            fit in 0usize..1600,
            kind in 0usize..4,
        ) {
            let start: &[u8] = [&[8, 0, 0x45][..], &[0x86, 0xDD, 0x60], &[0x81, 0, 0, 7, 8, 0, 0x45], &[]][kind];
            put(&mut frame, 12, start);
            let length = answer(&frame, fit, &mut [0; ANSWER_OCTETS]);
            prop_assert!(length.is_none_or(|length| length <= frame.len() + 28));
        }
    }
}
