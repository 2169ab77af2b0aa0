//! What the coalescer reads off one frame: whether it may be merged at all, and by which figures.

use std::ops::Range;

use crate::checksum::{is_valid, sum, word};
use crate::coalesce::rules::CoalesceRules;
use crate::hashing::{mix, Seed};
use crate::headers::{
    network, u16_at, u32_at, u8_at, ETHERNET_OCTETS, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT_MASK, IPV4_OCTETS,
    IPV6_OCTETS, MAX_TAGS, PROTOCOL_ICMPV6, PROTOCOL_TCP, PROTOCOL_UDP, TCP_ACK, TCP_ECE, TCP_PSH,
};

/// Room for the longest headers: two tags, IPv6, TCP with all options.
pub(super) const HEAD_OCTETS: usize = 128;
const _: () = assert!(ETHERNET_OCTETS + 4 * MAX_TAGS + IPV6_OCTETS + 60 <= HEAD_OCTETS);

/// A frame's headers, padded with zeros.
pub(super) type Head = [u8; HEAD_OCTETS];

const PORTS_OCTETS: usize = 4;
const UDP_OCTETS: usize = 8;
/// Version 4, no options.
const PLAIN_IPV4: u8 = 0x45;
/// The kernel writes a TCP checksum of zero as 0, and one of UDP as FFFF (0 means none there).
const NOT_CANONICAL_TCP: u16 = 0xFFFF;
const NONE_UDP: u16 = 0;

/// Which of the layouts a frame has; offsets follow from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Layout {
    /// Where the IP header begins: 14, 18 or 22.
    pub(super) network: usize,
    pub(super) is_v4: bool,
    pub(super) is_tcp: bool,
}

impl Layout {
    /// Layouts that there are.
    pub(super) const COUNT: usize = (MAX_TAGS + 1) * 4;

    /// All of them, by index.
    pub(super) fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(|index| Self {
            network: ETHERNET_OCTETS + 4 * (index / 4),
            is_v4: index & 2 == 0,
            is_tcp: index & 1 == 0,
        })
    }

    #[inline]
    pub(super) fn index(self) -> usize {
        (self.network - ETHERNET_OCTETS) + if self.is_v4 { 0 } else { 2 } + usize::from(!self.is_tcp)
    }

    /// Where the TCP or UDP header begins.
    #[inline]
    pub(super) fn transport(self) -> usize {
        self.network + if self.is_v4 { IPV4_OCTETS } else { IPV6_OCTETS }
    }

    /// Where the IP addresses begin; the ports follow them.
    #[inline]
    pub(super) fn addresses(self) -> usize {
        self.network + if self.is_v4 { 12 } else { 8 }
    }

    /// Where the IP header's length field is.
    #[inline]
    pub(super) fn length(self) -> usize {
        self.network + if self.is_v4 { 2 } else { 4 }
    }

    /// Where what that field counts begins.
    #[inline]
    pub(super) fn counted_from(self) -> usize {
        self.network + if self.is_v4 { 0 } else { IPV6_OCTETS }
    }

    /// From the transport header to its checksum.
    #[inline]
    pub(super) fn checksum_offset(self) -> usize {
        if self.is_tcp {
            16
        } else {
            6
        }
    }

    /// The transport protocol's number.
    #[inline]
    pub(super) fn protocol(self) -> u8 {
        if self.is_tcp {
            PROTOCOL_TCP
        } else {
            PROTOCOL_UDP
        }
    }

    /// A mask over the headers: 0 where segments of one run differ.
    pub(super) fn mask(self) -> Head {
        let mut mask = [0xFF; HEAD_OCTETS];
        let transport = self.transport();
        let mut clear = |range: Range<usize>| mask[range].fill(0);
        clear(self.length()..self.length() + 2);
        if self.is_v4 {
            clear(self.network + 4..self.network + 6);
            clear(self.network + 10..self.network + 12);
        }
        if self.is_tcp {
            clear(transport + 4..transport + 8);
        } else {
            clear(transport + 4..transport + 6);
        }
        clear(transport + self.checksum_offset()..transport + self.checksum_offset() + 2);
        if self.is_tcp {
            mask[transport + 13] &= !TCP_PSH;
        }
        mask
    }
}

/// A frame that may be merged as far as its headers tell; its checksums are not verified yet.
#[derive(Debug, Clone, Copy)]
pub(super) struct Segment {
    pub(super) layout: Layout,
    /// Where the payload begins.
    pub(super) body: usize,
    /// Payload bytes, at least 1.
    pub(super) payload: usize,
    /// Identification (IPv4; else 0).
    pub(super) identity: u16,
    /// Sequence number (TCP; else 0).
    pub(super) sequence: u32,
    pub(super) is_pushed: bool,
}

impl Segment {
    /// IP header and transport checksums are right, and written as the kernel would write them.
    #[inline]
    pub(super) fn is_good(&self, frame: &[u8]) -> bool {
        let layout = self.layout;
        let part = |range: Range<usize>| frame.get(range).unwrap_or(&[]);
        if layout.is_v4 {
            let header = part(layout.network..layout.transport());
            if u16_at(header, 10) == 0xFFFF || !is_valid(sum(header)) {
                return false;
            }
        }
        let not_canonical = if layout.is_tcp { NOT_CANONICAL_TCP } else { NONE_UDP };
        if u16_at(frame, layout.transport() + layout.checksum_offset()) == not_canonical {
            return false;
        }
        let octets = (frame.len() - layout.transport()) as u16;
        let counted = sum(part(layout.addresses()..frame.len()));
        is_valid(counted + word(u16::from(layout.protocol())) + word(octets))
    }
}

/// The runs that a frame which is not merged may belong to: they end, so that it is not overtaken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Flow {
    /// None: no run has such frames.
    None,
    /// That with this key.
    Key(u64),
    /// Perhaps any: a fragment or unusual headers.
    Any,
}

/// What a frame is to the coalescer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Parsed {
    Segment(Segment),
    Alone(Alone),
}

/// A frame that is not merged.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Alone {
    /// Neither IPv4 nor IPv6 (or behind tags that are not looked behind).
    Other,
    /// Of the flow with the addresses and ports in this layout.
    Flow(Layout),
    /// Of a flow that is not worth finding out.
    Unknown,
}

/// The key of a flow: a keyed hash of addresses and ports. Two flows with one key only end each other's runs.
#[inline]
pub(super) fn flow_key(frame: &[u8], layout: Layout, seed: Seed) -> u64 {
    let octets = frame.get(layout.addresses()..layout.transport() + PORTS_OCTETS).unwrap_or(&[]);
    let mut key = 0;
    let mut rest = octets;
    while let Some((part, behind)) = rest.split_first_chunk::<8>() {
        key = mix(key ^ u64::from_le_bytes(*part), seed);
        rest = behind;
    }
    mix(key ^ u64::from(u32_at(rest, 0)), seed)
}

/// Read a frame's headers.
#[inline]
pub(super) fn parse(frame: &[u8], rules: &CoalesceRules) -> Parsed {
    let (network, ethertype) = network(frame);
    if network != ETHERNET_OCTETS && !rules.tagged {
        return Parsed::Alone(Alone::Other);
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_v4(frame, network, rules),
        ETHERTYPE_IPV6 => parse_v6(frame, network, rules),
        _ => Parsed::Alone(Alone::Other),
    }
}

#[inline]
fn parse_v4(frame: &[u8], network: usize, rules: &CoalesceRules) -> Parsed {
    let is_fragment = u16_at(frame, network + 6) & FRAGMENT_MASK != 0;
    if u8_at(frame, network) != PLAIN_IPV4 || is_fragment || frame.len() < network + IPV4_OCTETS + PORTS_OCTETS {
        return Parsed::Alone(Alone::Unknown);
    }
    let identity = u16_at(frame, network + 4);
    match u8_at(frame, network + 9) {
        PROTOCOL_TCP => parse_tcp(frame, Layout { network, is_v4: true, is_tcp: true }, identity, rules.tcp4),
        PROTOCOL_UDP => parse_udp(frame, Layout { network, is_v4: true, is_tcp: false }, identity, rules.udp4),
        _ => Parsed::Alone(Alone::Flow(Layout { network, is_v4: true, is_tcp: false })),
    }
}

#[inline]
fn parse_v6(frame: &[u8], network: usize, rules: &CoalesceRules) -> Parsed {
    if u8_at(frame, network) >> 4 != 6 || frame.len() < network + IPV6_OCTETS + PORTS_OCTETS {
        return Parsed::Alone(Alone::Unknown);
    }
    match u8_at(frame, network + 6) {
        PROTOCOL_TCP => parse_tcp(frame, Layout { network, is_v4: false, is_tcp: true }, 0, rules.tcp6),
        PROTOCOL_UDP => parse_udp(frame, Layout { network, is_v4: false, is_tcp: false }, 0, rules.udp6),
        PROTOCOL_ICMPV6 => Parsed::Alone(Alone::Flow(Layout { network, is_v4: false, is_tcp: false })),
        _ => Parsed::Alone(Alone::Unknown),
    }
}

#[inline]
fn parse_tcp(frame: &[u8], layout: Layout, identity: u16, is_wanted: bool) -> Parsed {
    let transport = layout.transport();
    let offset = u8_at(frame, transport + 12);
    let flags = u8_at(frame, transport + 13);
    let body = transport + usize::from(offset >> 4) * 4;
    if !is_wanted
        || offset < 0x50
        || offset & 0x0F != 0
        || flags & !(TCP_PSH | TCP_ECE) != TCP_ACK
        || frame.len() <= body
        || usize::from(u16_at(frame, layout.length())) != frame.len() - layout.counted_from()
    {
        return Parsed::Alone(Alone::Flow(layout));
    }
    Parsed::Segment(Segment {
        layout,
        body,
        payload: frame.len() - body,
        identity,
        sequence: u32_at(frame, transport + 4),
        is_pushed: flags & TCP_PSH != 0,
    })
}

#[inline]
fn parse_udp(frame: &[u8], layout: Layout, identity: u16, is_wanted: bool) -> Parsed {
    let transport = layout.transport();
    let body = transport + UDP_OCTETS;
    if !is_wanted
        || frame.len() <= body
        || usize::from(u16_at(frame, layout.length())) != frame.len() - layout.counted_from()
        || usize::from(u16_at(frame, transport + 4)) != frame.len() - transport
    {
        return Parsed::Alone(Alone::Flow(layout));
    }
    Parsed::Segment(Segment { layout, body, payload: frame.len() - body, identity, sequence: 0, is_pushed: false })
}
