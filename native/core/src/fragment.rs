//! OpenVPN's `fragment`: payloads that are too large for one packet are cut, and joined at the other end.
//!
//! Source: `docs/protocol/data.md#4-1`; `bridged/protocol/packets/fragments.py` does the same.

use crate::{Nanos, SECOND};

/// Bytes in front of every payload, and of every part.
pub const FRAGMENT_HEADER: usize = 4;
/// Most parts of a payload.
pub const PARTS_MOST: usize = 32;
/// Most payloads of one peer that wait for parts.
const WAITING_MOST: usize = 25;
/// Most bytes that they take together.
const WAITING_OCTETS: usize = 128 * 1024;
/// They are given up after this long.
const WAITING: Nanos = 10 * SECOND;
/// The largest frame that a TAP can carry, with tags and framing.
pub const PAYLOAD_MOST: usize = 65_535 + 64;

const NOT_LAST: u32 = 1;
const LAST: u32 = 2;

/// How many bytes of a payload each part carries but the last one; `most`: of the largest part, 4 at least. OpenVPN
/// makes the parts about equal.
#[must_use]
pub fn part_octets(length: usize, most: usize) -> usize {
    let most = (most & !3).max(4);
    let (whole, rest) = (length / most, length % most);
    if whole > 0 && rest > 0 && rest < most * 3 / 4 {
        let even = most - (most - rest) / (whole + 1);
        most.min((even + 3) & !3)
    } else {
        most
    }
}

/// The header of a part; `size`: bytes of every part but the last.
#[must_use]
pub fn part_header(sequence: u8, number: usize, is_last: bool, size: usize) -> [u8; FRAGMENT_HEADER] {
    let kind = if is_last { LAST | ((size / 4) as u32 & 0x3fff) << 15 } else { NOT_LAST };
    (kind | u32::from(sequence) << 2 | (number as u32 & 31) << 10).to_be_bytes()
}

/// What a packet carries.
#[derive(Debug, PartialEq, Eq)]
pub enum Joined {
    /// A whole payload, behind the header.
    Whole,
    /// A part, and others are missing.
    Missing,
    /// The last missing part of this payload.
    Complete(Vec<u8>),
    /// It is of no use: no sender writes such a header, or it fits no payload.
    Bad,
}

/// A payload of which parts are missing.
#[derive(Debug)]
struct Waiting {
    sequence: u8,
    began: Nanos,
    size: usize,
    octets: Vec<u8>,
    /// A bit for each part that is there.
    seen: u32,
    /// Number of the last part, once it is there.
    last: Option<u32>,
}

impl Waiting {
    fn is_complete(&self) -> bool {
        // In 64 bits: there may be 32 parts.
        self.last.is_some_and(|last| u64::from(self.seen) == (1 << (last + 1)) - 1)
    }
}

/// Joins the parts of one peer's payloads, in any order; bounded in payloads, bytes and time.
#[derive(Debug, Default)]
pub struct Reassembly {
    /// In the order in which they began.
    waiting: Vec<Waiting>,
    octets: usize,
    /// Payloads that were given up since `take_lost`.
    lost: u64,
}

impl Reassembly {
    /// Take what a packet carries.
    pub fn take(&mut self, packet: &[u8], now: Nanos) -> Joined {
        let Some((header, part)) = packet.split_first_chunk::<FRAGMENT_HEADER>() else { return Joined::Bad };
        let header = u32::from_be_bytes(*header);
        if header == 0 && !part.is_empty() {
            return Joined::Whole;
        }
        let (kind, sequence, number) = (header & 3, (header >> 2) as u8, header >> 10 & 31);
        let size = match kind {
            NOT_LAST => part.len(),
            LAST => 4 * (header >> 15 & 0x3fff) as usize,
            _ => return Joined::Bad,
        };
        let start = size * number as usize;
        let end = start + part.len();
        if part.is_empty() || part.len() > size || end > PAYLOAD_MOST {
            return Joined::Bad;
        }
        let mut index = self.find(sequence, size, now);
        if self.waiting[index].seen >> number & 1 == 1 {
            return Joined::Bad;
        }
        let more = end.saturating_sub(self.waiting[index].octets.len());
        while self.octets + more > WAITING_OCTETS {
            let oldest = usize::from(index == 0);
            self.give_up(oldest);
            index -= usize::from(oldest < index);
        }
        self.octets += more;
        let waiting = &mut self.waiting[index];
        if more > 0 {
            waiting.octets.resize(end, 0);
        }
        waiting.octets[start..end].copy_from_slice(part);
        waiting.seen |= 1 << number;
        if kind == LAST {
            waiting.last = Some(number);
        }
        if !waiting.is_complete() {
            return Joined::Missing;
        }
        let complete = self.waiting.remove(index);
        self.octets -= complete.octets.len();
        Joined::Complete(complete.octets)
    }

    /// Payloads that were given up since the call before.
    pub fn take_lost(&mut self) -> u64 {
        std::mem::take(&mut self.lost)
    }

    /// The payload of this number; a new one where the parts have another size, or are too old.
    fn find(&mut self, sequence: u8, size: usize, now: Nanos) -> usize {
        while self.waiting.first().is_some_and(|waiting| now.saturating_sub(waiting.began) > WAITING) {
            self.give_up(0);
        }
        if let Some(index) = self.waiting.iter().position(|waiting| waiting.sequence == sequence) {
            if self.waiting[index].size == size {
                return index;
            }
            self.give_up(index);
        }
        if self.waiting.len() >= WAITING_MOST {
            self.give_up(0);
        }
        self.waiting.push(Waiting { sequence, began: now, size, octets: Vec::new(), seen: 0, last: None });
        self.waiting.len() - 1
    }

    fn give_up(&mut self, index: usize) {
        self.octets -= self.waiting.remove(index).octets.len();
        self.lost += 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The packets that carry a payload.
    fn cut(payload: &[u8], most: usize, sequence: u8) -> Vec<Vec<u8>> {
        let size = part_octets(payload.len(), most);
        let count = payload.len().div_ceil(size);
        let packet = |(number, part): (usize, &[u8])| {
            [&part_header(sequence, number, number + 1 == count, size)[..], part].concat()
        };
        payload.chunks(size).enumerate().map(packet).collect()
    }

    fn payload(length: usize) -> Vec<u8> {
        (0..length).map(|at| (at * 7) as u8).collect()
    }

    #[test]
    fn parts_in_any_order_make_the_payload() {
        for length in [973, 1514, 2000, 9014, 31_000] {
            let whole = payload(length);
            let mut packets = cut(&whole, 972, 255);
            assert!(packets.iter().all(|packet| packet.len() <= 976) && packets.len() <= PARTS_MOST);
            for _ in 0..2 {
                packets.reverse();
                let mut reassembly = Reassembly::default();
                let (newest, earlier) = packets.split_last().unwrap();
                for packet in earlier {
                    assert_eq!(reassembly.take(packet, 0), Joined::Missing);
                }
                assert_eq!(reassembly.take(newest, 0), Joined::Complete(whole.clone()));
                assert_eq!((reassembly.octets, reassembly.waiting.len(), reassembly.take_lost()), (0, 0, 0));
            }
        }
    }

    #[test]
    fn parts_are_about_equal_as_openvpn_cuts_them() {
        // docs/protocol/data.md#4-1; the capture a06: 1042 bytes in parts of 524, `fragment 1000`.
        assert_eq!(part_octets(1042, 972), 524);
        assert_eq!(part_octets(1900, 972), 972);
        assert_eq!(part_octets(972, 972), 972);
        assert_eq!(part_octets(10, 0), 4);
    }

    #[test]
    fn a_payload_that_lacks_parts_is_given_up_by_number_bytes_or_time() {
        let mut reassembly = Reassembly::default();
        for sequence in 0..=WAITING_MOST as u8 {
            assert_eq!(reassembly.take(&cut(&payload(100), 60, sequence)[0], 0), Joined::Missing);
        }
        assert_eq!(reassembly.take_lost(), 1);
        assert_eq!(reassembly.take(&cut(&payload(100), 60, 200)[0], WAITING + 1), Joined::Missing);
        assert_eq!((reassembly.take_lost(), reassembly.waiting.len()), (WAITING_MOST as u64, 1));
        for sequence in 0..9 {
            let packets = cut(&payload(60_000), 2_000, sequence);
            assert_eq!(reassembly.take(packets.last().unwrap(), WAITING + 1), Joined::Missing);
            assert!(reassembly.octets <= WAITING_OCTETS);
        }
        assert_eq!(reassembly.waiting.len(), 2);
        // The number comes round again with parts of another size.
        assert_eq!(reassembly.take(&cut(&payload(100), 60, 8)[0], WAITING + 1), Joined::Missing);
        assert_eq!(reassembly.waiting.len(), 2);
    }

    #[test]
    fn what_no_sender_writes_is_bad() {
        let mut reassembly = Reassembly::default();
        let part = part_header(1, 0, false, 0);
        let last = |size| part_header(1, 31, true, size);
        let bad: [Vec<u8>; 8] = [
            vec![0; 3],
            vec![0; 4],
            vec![0, 0, 0, 3, 1, 1, 1, 1],
            vec![0, 0, 4, 0, 1, 1, 1, 1],
            part.to_vec(),
            [&last(0)[..], &[1; 8]].concat(),
            [&last(4)[..], &[1; 8]].concat(),
            [&last(4_000)[..], &[1; 8]].concat(),
        ];
        for packet in bad {
            assert_eq!(reassembly.take(&packet, 0), Joined::Bad, "{packet:?}");
        }
        assert_eq!(reassembly.take(&[0, 0, 0, 0, 9], 0), Joined::Whole);
        let packets = cut(&payload(100), 60, 8);
        assert_eq!(reassembly.take(&packets[0], 0), Joined::Missing);
        assert_eq!(reassembly.take(&packets[0], 0), Joined::Bad, "twice");
    }
}
