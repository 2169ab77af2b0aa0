//! Cuts an IPv4 packet that may be cut (no DF) into IP fragments, as a router in front of a smaller link does.
//!
//! Source: RFC 791, 3.2 (fragmentation); RFC 1812, 4.2.2.7. Takes any bytes and never panics.

use crate::checksum::{field, sum};
use crate::headers::{network, put, u16_at, u8_at, ETHERTYPE_IPV4, IPV4_DONT_FRAGMENT, IPV4_OCTETS};

const MORE_FRAGMENTS: u16 = 0x2000;
const OFFSET_MASK: u16 = 0x1FFF;
/// Offsets count in steps of this many bytes.
const UNIT: usize = 8;
/// Of what a fragment carries: less is no path.
const LEAST_PAYLOAD: usize = 64;

/// How a frame is cut.
#[derive(Debug, Clone, Copy)]
pub struct Ipv4Cut<'a> {
    frame: &'a [u8],
    /// Where the IP header begins.
    at: usize,
    /// Bytes of all fragments together, without headers.
    payload: usize,
    /// Bytes that each fragment but the last carries.
    step: usize,
    count: usize,
}

impl<'a> Ipv4Cut<'a> {
    /// For a frame of which `fit` bytes cross. None: it is no IPv4 packet, must not be cut, has options, or fits.
    #[must_use]
    #[cold]
    pub fn of(frame: &'a [u8], fit: usize) -> Option<Ipv4Cut<'a>> {
        let (at, ethertype) = network(frame);
        let packet = frame.get(at..).filter(|_| ethertype == ETHERTYPE_IPV4)?;
        let total = usize::from(u16_at(packet, 2));
        let flags = u16_at(packet, 6);
        // Options would need a look at each (some are not copied): hardly any packet has them.
        if u8_at(packet, 0) != 0x45 || flags & IPV4_DONT_FRAGMENT != 0 || total > packet.len() {
            return None;
        }
        let room = fit.checked_sub(at + IPV4_OCTETS)? / UNIT * UNIT;
        let payload = total.checked_sub(IPV4_OCTETS)?;
        let end = usize::from(flags & OFFSET_MASK) * UNIT + payload;
        if room < LEAST_PAYLOAD || at + total <= fit || end > usize::from(u16::MAX) {
            return None;
        }
        // As many as needed, of about equal size: a small last one would cost as much.
        let step = payload.div_ceil(payload.div_ceil(room)).next_multiple_of(UNIT);
        Some(Ipv4Cut { frame, at, payload, step, count: payload.div_ceil(step) })
    }

    /// How many fragments.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// Bytes of the longest, as a frame.
    #[must_use]
    pub fn most(&self) -> usize {
        self.at + IPV4_OCTETS + self.step
    }

    /// Write fragment `index` to the start of `out`; how many bytes that were. 0: there is no such one, or no room.
    pub fn write(&self, index: usize, out: &mut [u8]) -> usize {
        let from = index.saturating_mul(self.step);
        let Some(carried) = self.payload.checked_sub(from).map(|left| left.min(self.step)).filter(|&left| left > 0)
        else {
            return 0;
        };
        let head = self.at + IPV4_OCTETS;
        let (Some(room), Some(header), Some(body)) =
            (out.get_mut(..head + carried), self.frame.get(..head), self.frame.get(head + from..head + from + carried))
        else {
            return 0;
        };
        room[..head].copy_from_slice(header);
        room[head..].copy_from_slice(body);
        let before = u16_at(header, self.at + 6);
        let is_last = from + carried == self.payload;
        let more = if is_last { before & MORE_FRAGMENTS } else { MORE_FRAGMENTS };
        let offset = (before & OFFSET_MASK) + (from / UNIT) as u16;
        put(room, self.at + 2, &((IPV4_OCTETS + carried) as u16).to_be_bytes());
        put(room, self.at + 6, &(before & 0x8000 | more | offset).to_be_bytes());
        put(room, self.at + 10, &[0, 0]);
        let checksum = field(sum(&room[self.at..head]));
        put(room, self.at + 10, &checksum);
        head + carried
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_full_packet_becomes_two_halves() {
        let mut frame = vec![0xAB; 1514];
        put(&mut frame, 12, &[8, 0, 0x45, 0, 0x05, 0xDC, 0, 77, 0, 0]);
        let cut = Ipv4Cut::of(&frame, 1348).unwrap();
        let mut out = [0; 2048];
        assert_eq!((cut.count(), cut.write(0, &mut out), cut.write(1, &mut out)), (2, 14 + 20 + 744, 14 + 20 + 736));
        assert_eq!(u16_at(&out, 20), 744 / 8);
        assert!(Ipv4Cut::of(&frame, 1514).is_none());
        frame[20] = 0x40;
        assert!(Ipv4Cut::of(&frame, 1348).is_none());
    }

    proptest! {
        #[test]
        fn fragments_fit_and_carry_everything_once_whatever_the_bytes(
            mut frame in proptest::collection::vec(any::<u8>(), 0..4000),
            fit in 0usize..2000,
            kind in 0usize..3,
            is_whole in any::<bool>(),
        ) {
            let start: &[u8] = [&[8, 0, 0x45][..], &[0x81, 0, 0, 7, 8, 0, 0x45], &[]][kind];
            put(&mut frame, 12, start);
            let at = 11 + start.len();
            if kind < 2 && is_whole && frame.len() > at + IPV4_OCTETS {
                let total = (frame.len() - at - 1) as u16;
                put(&mut frame, at + 1, &[0]);
                put(&mut frame, at + 2, &total.to_be_bytes());
                put(&mut frame, at + 6, &[0, 3]);
            }
            let at = network(&frame).0;
            if let Some(cut) = Ipv4Cut::of(&frame, fit) {
                let mut joined = Vec::new();
                let mut out = [0; 2048];
                for index in 0..cut.count() {
                    let length = cut.write(index, &mut out);
                    prop_assert!(length > at + IPV4_OCTETS && length <= fit.min(cut.most()));
                    let offset = |octets: &[u8]| usize::from(u16_at(octets, at + 6) & OFFSET_MASK) * UNIT;
                    prop_assert_eq!(offset(&out), offset(&frame) + joined.len());
                    let more = u16_at(&out, at + 6) & MORE_FRAGMENTS != 0;
                    let had_more = u16_at(&frame, at + 6) & MORE_FRAGMENTS != 0;
                    prop_assert_eq!(more, had_more || index + 1 < cut.count());
                    prop_assert_eq!(field(sum(&out[at..at + IPV4_OCTETS])), [0, 0]);
                    joined.extend_from_slice(&out[at + IPV4_OCTETS..length]);
                }
                prop_assert_eq!(cut.write(cut.count(), &mut out), 0);
                let total = usize::from(u16_at(&frame, at + 2));
                prop_assert_eq!(&joined[..], &frame[at + IPV4_OCTETS..at + total]);
            }
        }
    }
}
