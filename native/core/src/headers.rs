//! What an Ethernet frame's headers say: VLAN tags, EtherType, where IP and TCP begin.
//!
//! Source: IEEE 802.1Q-2022, 9; RFC 791; RFC 8200; RFC 9293. Every function takes any bytes and never panics.

/// Bytes of an Ethernet header without tags.
pub const ETHERNET_OCTETS: usize = 14;
/// EtherType of IPv4.
pub const ETHERTYPE_IPV4: u16 = 0x0800;
/// EtherType of IPv6.
pub const ETHERTYPE_IPV6: u16 = 0x86DD;
/// TPID of a customer tag.
pub const TPID_CUSTOMER: u16 = 0x8100;
/// TPID of a service tag.
pub const TPID_SERVICE: u16 = 0x88A8;
/// Tags that are looked behind.
pub const MAX_TAGS: usize = 2;
/// Protocol number of TCP.
pub const PROTOCOL_TCP: u8 = 6;
/// Protocol number of UDP.
pub const PROTOCOL_UDP: u8 = 17;
/// Protocol number of ICMPv6.
pub const PROTOCOL_ICMPV6: u8 = 58;
/// Bytes of an IPv4 header without options.
pub const IPV4_OCTETS: usize = 20;
/// Bytes of an IPv6 header without extensions.
pub const IPV6_OCTETS: usize = 40;
/// DF alone in the IPv4 header's flags and fragment offset.
pub const IPV4_DONT_FRAGMENT: u16 = 0x4000;
/// MF and the fragment offset in the IPv4 header.
pub const FRAGMENT_MASK: u16 = 0x3FFF;

/// TCP flag.
pub const TCP_FIN: u8 = 0x01;
/// TCP flag.
pub const TCP_SYN: u8 = 0x02;
/// TCP flag.
pub const TCP_PSH: u8 = 0x08;
/// TCP flag.
pub const TCP_ACK: u8 = 0x10;
/// TCP flag.
pub const TCP_ECE: u8 = 0x40;
/// TCP flag.
pub const TCP_CWR: u8 = 0x80;

/// A station's address as a number: the six bytes, the first one highest; the upper 16 bits are 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Mac(u64);

impl Mac {
    /// To everybody.
    pub const BROADCAST: Self = Self(0xFFFF_FFFF_FFFF);

    /// From its six bytes.
    #[must_use]
    #[inline]
    pub const fn new(octets: [u8; 6]) -> Self {
        let [a, b, c, d, e, f] = octets;
        Self(u64::from_be_bytes([0, 0, a, b, c, d, e, f]))
    }

    /// Its six bytes.
    #[must_use]
    #[inline]
    pub const fn octets(self) -> [u8; 6] {
        let [_, _, a, b, c, d, e, f] = self.0.to_be_bytes();
        [a, b, c, d, e, f]
    }

    /// The address as a 48-bit number.
    #[must_use]
    #[inline]
    pub const fn number(self) -> u64 {
        self.0
    }

    /// The group bit: multicast or broadcast.
    #[must_use]
    #[inline]
    pub const fn is_group(self) -> bool {
        self.0 & (1 << 40) != 0
    }

    /// All zero.
    #[must_use]
    #[inline]
    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// Destination and source of a frame; None below 12 bytes.
#[must_use]
#[inline]
pub fn addresses(frame: &[u8]) -> Option<(Mac, Mac)> {
    let &[a, b, c, d, e, f, g, h, i, j, k, l] = frame.first_chunk::<12>()?;
    Some((Mac::new([a, b, c, d, e, f]), Mac::new([g, h, i, j, k, l])))
}

/// The big-endian 16-bit number at `at`, 0 where the bytes are not there.
#[must_use]
#[inline]
pub fn u16_at(octets: &[u8], at: usize) -> u16 {
    match octets.get(at..).and_then(|rest| rest.first_chunk::<2>()) {
        Some(&pair) => u16::from_be_bytes(pair),
        None => 0,
    }
}

/// The big-endian 32-bit number at `at`, 0 where the bytes are not there.
#[must_use]
#[inline]
pub fn u32_at(octets: &[u8], at: usize) -> u32 {
    match octets.get(at..).and_then(|rest| rest.first_chunk::<4>()) {
        Some(&four) => u32::from_be_bytes(four),
        None => 0,
    }
}

/// The byte at `at`, 0 where it is not there.
#[must_use]
#[inline]
pub fn u8_at(octets: &[u8], at: usize) -> u8 {
    octets.get(at).copied().unwrap_or(0)
}

/// Write bytes at `at`; nothing where they do not fit.
#[inline]
pub fn put(octets: &mut [u8], at: usize, value: &[u8]) {
    if let Some(room) = octets.get_mut(at..).and_then(|rest| rest.get_mut(..value.len())) {
        room.copy_from_slice(value);
    }
}

/// Where the network header begins, behind at most [`MAX_TAGS`] tags, and its EtherType (0: frame too short).
#[must_use]
#[inline]
pub fn network(frame: &[u8]) -> (usize, u16) {
    let mut at = 12;
    let mut ethertype = u16_at(frame, at);
    for _ in 0..MAX_TAGS {
        if ethertype != TPID_CUSTOMER && ethertype != TPID_SERVICE {
            break;
        }
        at += 4;
        ethertype = u16_at(frame, at);
    }
    (at + 2, ethertype)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_keeps_its_octets() {
        let octets = [0x02, 0xab, 0, 1, 2, 3];
        assert_eq!(Mac::new(octets).octets(), octets);
        assert!(!Mac::new(octets).is_group());
        assert!(Mac::new([1, 0, 0x5e, 0, 0, 1]).is_group() && Mac::BROADCAST.is_group());
        assert!(Mac::new([0; 6]).is_zero());
    }

    #[test]
    fn the_network_header_is_found_behind_two_tags() {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0x00]);
        assert_eq!(network(&frame), (14, ETHERTYPE_IPV4));
        frame.splice(12..12, [0x81, 0x00, 0, 5]);
        assert_eq!(network(&frame), (18, ETHERTYPE_IPV4));
        frame.splice(12..12, [0x88, 0xa8, 0, 6]);
        assert_eq!(network(&frame), (22, ETHERTYPE_IPV4));
        frame.splice(12..12, [0x88, 0xa8, 0, 6]);
        assert_eq!(network(&frame), (22, TPID_CUSTOMER));
        assert_eq!(network(&frame[..13]), (14, 0));
    }
}
