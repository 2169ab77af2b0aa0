//! The urgency that a frame carries, and the DSCP that it gets on the wire.
//!
//! Source: IEEE 802.1Q-2022, 6.9.3 and table 8-5 (of two traffic classes the upper one is for PCP 4 to 7); RFC 2474;
//! RFC 4594 (voice is EF); RFC 2983. `bridged/dataplane/portable/headers/priority.py` is the same in Python.

use crate::headers::{network, u16_at, u8_at, ETHERTYPE_IPV4, ETHERTYPE_IPV6, TPID_CUSTOMER, TPID_SERVICE};

/// Where a frame's urgency is read.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Priority {
    /// Nowhere: the outer packets say nothing of what is in them.
    #[default]
    Off,
    /// In the priority bits of its first VLAN tag.
    Pcp,
    /// In the DSCP of its IP header, behind at most two VLAN tags.
    Dscp,
}

/// DSCP for each PCP: the class selector of the same number, but EF for 5, which is voice.
const DSCP_OF_PCP: [u8; 8] = [0, 8, 16, 24, 32, 46, 48, 56];
/// The least urgent DSCP: CS4. So PCP 4 to 7, and AF4x, CS4, CS5, EF, CS6, CS7.
const LEAST_URGENT: u8 = 32;

impl Priority {
    /// From its name in the contract: `off`, `pcp` or `dscp`.
    #[must_use]
    pub fn parse(name: &str) -> Option<Self> {
        match name {
            "off" => Some(Self::Off),
            "pcp" => Some(Self::Pcp),
            "dscp" => Some(Self::Dscp),
            _ => None,
        }
    }

    /// The DSCP, 0..=63, of the datagram that carries the frame; 0 where the frame says nothing.
    #[must_use]
    #[inline]
    pub fn dscp(self, frame: &[u8]) -> u8 {
        match self {
            Self::Off => 0,
            Self::Pcp => dscp_of_tag(frame),
            Self::Dscp => dscp_of_ip(frame),
        }
    }
}

/// Whether what has this DSCP goes before what has not.
#[must_use]
#[inline]
pub fn is_urgent(dscp: u8) -> bool {
    dscp >= LEAST_URGENT
}

fn dscp_of_tag(frame: &[u8]) -> u8 {
    match u16_at(frame, 12) {
        TPID_CUSTOMER | TPID_SERVICE => DSCP_OF_PCP[usize::from(u8_at(frame, 14) >> 5)],
        _ => 0,
    }
}

fn dscp_of_ip(frame: &[u8]) -> u8 {
    let (at, ethertype) = network(frame);
    match (ethertype, u8_at(frame, at) >> 4) {
        (ETHERTYPE_IPV4, 4) => u8_at(frame, at + 1) >> 2,
        (ETHERTYPE_IPV6, 6) => (u16_at(frame, at) >> 6) as u8 & 0x3F,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(middle: &[&[u8]]) -> Vec<u8> {
        [&[2; 12], middle.concat().as_slice(), &[0; 40]].concat()
    }

    const V4: &[u8] = &[8, 0, 0x45, 46 << 2 | 1];
    const V6: &[u8] = &[0x86, 0xDD, 0x6B, 0xBF, 0xFF];

    #[test]
    fn dscp_is_that_of_the_ip_header_without_ecn() {
        assert_eq!(Priority::Dscp.dscp(&frame(&[V4])), 46);
        assert_eq!(Priority::Dscp.dscp(&frame(&[V6])), 0xBB >> 2);
        let tags: [&[u8]; 2] = [&[0x88, 0xA8, 0, 1], &[0x81, 0, 0, 1]];
        assert_eq!(Priority::Dscp.dscp(&frame(&[tags[0], tags[1], V4])), 46);
        assert_eq!(Priority::Dscp.dscp(&frame(&[&[8, 6, 0x45, 0xFF]])), 0, "ARP");
        assert_eq!(Priority::Dscp.dscp(&frame(&[&[8, 0, 0x65, 0xFF]])), 0, "neither version");
        assert_eq!(Priority::Dscp.dscp(&[2; 14]), 0);
    }

    #[test]
    fn pcp_is_that_of_the_first_tag() {
        for (pcp, dscp) in [0, 8, 16, 24, 32, 46, 48, 56].into_iter().enumerate() {
            let tag = [0x81, 0, (pcp as u8) << 5 | 0x1F, 0xFF];
            assert_eq!(Priority::Pcp.dscp(&frame(&[&tag, V4])), dscp);
            assert_eq!(is_urgent(dscp), pcp >= 4);
        }
        assert_eq!(Priority::Pcp.dscp(&frame(&[&[0x88, 0xA8, 0xE0, 1], &[0x81, 0, 0, 1]])), 56);
        assert_eq!(Priority::Pcp.dscp(&frame(&[V4])), 0);
        assert_eq!(Priority::Pcp.dscp(&[0x81; 14]), 0);
    }

    #[test]
    fn off_reads_nothing() {
        assert_eq!(Priority::Off.dscp(&frame(&[&[0x81, 0, 0xE0, 1], V4])), 0);
        assert!(!is_urgent(0));
    }
}
