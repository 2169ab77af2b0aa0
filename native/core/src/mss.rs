//! Fitting the maximum segment size of TCP connections that cross the tunnel.
//!
//! Source: `docs/protocol/data.md#5-4`; RFC 9293, 3.7.1; RFC 1624 for the checksum.

use crate::headers::{
    network, put, u16_at, u8_at, ETHERTYPE_IPV4, ETHERTYPE_IPV6, FRAGMENT_MASK, PROTOCOL_TCP, TCP_SYN,
};

/// How much less the limit is for IPv6.
pub const IPV6_EXTRA_OCTETS: u16 = 20;

/// Where the path leaves less, SYN segments are left alone.
pub const LEAST_MSS: usize = 64;

const TCP_OCTETS: usize = 20;
const OPTION_END: u8 = 0;
const OPTION_NOTHING: u8 = 1;
const OPTION_MSS: u8 = 2;

/// Lower the MSS option of a TCP SYN to `limit` (IPv6: 20 less), in place; whether anything was changed.
///
/// Only SYN segments are looked at, behind at most two VLAN tags; an MSS is never raised. IPv4 fragments and IPv6
/// extension headers are left alone. The checksum is updated rather than recomputed: a wrong one stays wrong.
/// With a partial checksum (`NEEDS_CSUM`) call this after it was completed, or with `limit` on the frame that comes
/// out.
pub fn clamp_mss(frame: &mut [u8], limit: u16) -> bool {
    let Some(syn) = syn_of(frame) else { return false };
    let wanted = if syn.is_v6 { limit.saturating_sub(IPV6_EXTRA_OCTETS) } else { limit };
    lower(frame, syn.start, wanted)
}

/// As [`clamp_mss`], so that no full segment of the answering host makes a frame longer than `octets`.
///
/// Tags and IP options count as this SYN has them. A path that leaves less than [`LEAST_MSS`] is an error, not a limit.
pub fn clamp_mss_to_frame(frame: &mut [u8], octets: usize) -> bool {
    let Some(syn) = syn_of(frame) else { return false };
    match octets.checked_sub(syn.start + TCP_OCTETS) {
        Some(wanted) if wanted >= LEAST_MSS => lower(frame, syn.start, u16::try_from(wanted).unwrap_or(u16::MAX)),
        _ => false,
    }
}

/// A TCP segment with SYN in a frame that [`clamp_mss`] looks at.
#[must_use]
#[inline]
pub fn is_syn(frame: &[u8]) -> bool {
    syn_of(frame).is_some()
}

fn lower(frame: &mut [u8], start: usize, wanted: u16) -> bool {
    let Some(at) = mss_option(frame, start) else { return false };
    let old = u16_at(frame, at);
    if wanted == 0 || old <= wanted {
        return false;
    }
    // The value may lie across two 16-bit words; the checksum counts from the start of the TCP header.
    let is_odd = (at - start) % 2 == 1;
    let (before, after) = if is_odd { (old.swap_bytes(), wanted.swap_bytes()) } else { (old, wanted) };
    let checksum = u16_at(frame, start + 16);
    let mut total = u32::from(!checksum) + u32::from(!before) + u32::from(after);
    total = (total >> 16) + (total & 0xFFFF);
    total = (total >> 16) + (total & 0xFFFF);
    put(frame, at, &wanted.to_be_bytes());
    put(frame, start + 16, &(!(total as u16)).to_be_bytes());
    true
}

/// Where the TCP header of a SYN begins.
struct Syn {
    start: usize,
    is_v6: bool,
}

#[inline]
fn syn_of(frame: &[u8]) -> Option<Syn> {
    let (at, ethertype) = network(frame);
    let (start, is_v6) = match ethertype {
        ETHERTYPE_IPV4 => {
            let first = u8_at(frame, at);
            let is_whole = u16_at(frame, at + 6) & FRAGMENT_MASK == 0;
            if first >> 4 != 4 || first & 0x0F < 5 || u8_at(frame, at + 9) != PROTOCOL_TCP || !is_whole {
                return None;
            }
            (at + usize::from(first & 0x0F) * 4, false)
        }
        ETHERTYPE_IPV6 => {
            if u8_at(frame, at) >> 4 != 6 || u8_at(frame, at + 6) != PROTOCOL_TCP {
                return None;
            }
            (at + 40, true)
        }
        _ => return None,
    };
    let is_syn = frame.len() >= start + TCP_OCTETS && u8_at(frame, start + 13) & TCP_SYN != 0;
    is_syn.then_some(Syn { start, is_v6 })
}

/// Where the value of the first well-formed MSS option stands.
fn mss_option(frame: &[u8], start: usize) -> Option<usize> {
    let header = usize::from(u8_at(frame, start + 12) >> 4) * 4;
    let end = (start + header).min(frame.len());
    let mut at = start + TCP_OCTETS;
    while at < end {
        let kind = u8_at(frame, at);
        if kind == OPTION_END {
            return None;
        }
        if kind == OPTION_NOTHING {
            at += 1;
            continue;
        }
        let length = usize::from(u8_at(frame, at + 1));
        if at + 1 >= end || length < 2 || at + length > end {
            return None;
        }
        if kind == OPTION_MSS && length == 4 {
            return Some(at + 2);
        }
        at += length;
    }
    None
}
