//! Frames read from the TAP before they can be sent, to find urgent ones behind them: a bounded ring, oldest
//! first out.

use std::collections::VecDeque;

use bridged_core::vnet::{VnetHeader, LONG_OCTETS};
use bridged_sys::memory::resident;

use crate::tap::SUPER_FRAME_OCTETS;

/// Bytes of the ring: 128 of the largest super-frames. About what the socket may hold without `priority`.
const RING_OCTETS: usize = 8 * 1024 * 1024;
/// A place behind the ring for reads that find no room in it.
const OVERFLOW: usize = RING_OCTETS;
const OVERFLOW_OCTETS: usize = SUPER_FRAME_OCTETS + LONG_OCTETS + 1;
/// Most frames, of any size.
const RECORDS: usize = 8192;
/// Frames begin at whole cache lines.
const LINE_OCTETS: usize = 64;

/// A waiting frame or super-frame.
#[derive(Debug, Clone, Copy)]
pub struct Record {
    /// What the kernel said of it.
    pub vnet: VnetHeader,
    /// Its traffic class on the wire.
    pub class: u8,
    /// Where it begins in the ring.
    start: usize,
    /// Bytes.
    length: usize,
    /// Where what was read with it begins.
    from: usize,
}

/// See the module.
pub struct PriorityBacklog {
    ring: Box<[u8]>,
    records: VecDeque<Record>,
    /// Where the next read goes, unless the rest of the ring is too short for it.
    tail: usize,
}

impl PriorityBacklog {
    /// An empty one.
    pub fn new() -> PriorityBacklog {
        let ring = resident(RING_OCTETS + OVERFLOW_OCTETS);
        PriorityBacklog { ring, records: VecDeque::with_capacity(RECORDS), tail: 0 }
    }

    /// Nothing waits.
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Where to read this many bytes (one read of the TAP at most). While there is no room it is a place from which
    /// nothing can be kept.
    pub fn room(&mut self, octets: usize) -> usize {
        let Some(oldest) = self.records.front().map(|record| record.from) else {
            self.tail = 0;
            return 0;
        };
        if self.records.len() == RECORDS {
            return OVERFLOW;
        }
        // One byte stays free: the tail must not come to lie on the oldest.
        let is_wrapped = self.tail <= oldest;
        match (is_wrapped, self.tail + octets) {
            (true, end) if end < oldest => self.tail,
            (false, end) if end <= RING_OCTETS => self.tail,
            (false, _) if octets < oldest => 0,
            _ => OVERFLOW,
        }
    }

    /// `octets` from a place on: to read into, or what was read.
    pub fn at(&mut self, from: usize, octets: usize) -> &mut [u8] {
        &mut self.ring[from..from + octets]
    }

    /// Keep what was read to `from`, which `room` gave: `octets`, of which `header` are the virtio-net header's.
    /// Whether there was room for it.
    pub fn keep(&mut self, from: usize, header: usize, octets: usize, vnet: VnetHeader, class: u8) -> bool {
        if from == OVERFLOW {
            return false;
        }
        let (start, length) = (from + header, octets - header);
        self.records.push_back(Record { vnet, class, start, length, from });
        self.tail = (from + octets).next_multiple_of(LINE_OCTETS).min(RING_OCTETS);
        true
    }

    /// The oldest; it waits until `drop_oldest`.
    pub fn oldest(&self) -> Option<(Record, &[u8])> {
        let record = *self.records.front()?;
        Some((record, &self.ring[record.start..record.start + record.length]))
    }

    /// It was sent.
    pub fn drop_oldest(&mut self) {
        self.records.pop_front();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Put a frame of `octets`, all of one value, behind a header of 12.
    fn put(backlog: &mut PriorityBacklog, octets: usize, value: u8) -> bool {
        let from = backlog.room(octets + 12);
        backlog.at(from, octets + 12).fill(value);
        backlog.keep(from, 12, octets + 12, VnetHeader::default(), value)
    }

    fn take(backlog: &mut PriorityBacklog) -> Option<(usize, u8)> {
        let (record, frame) = backlog.oldest()?;
        assert!(frame.iter().all(|octet| *octet == record.class), "overwritten");
        let found = (frame.len(), record.class);
        backlog.drop_oldest();
        Some(found)
    }

    #[test]
    fn what_is_kept_comes_out_in_order_and_unharmed_however_full() {
        let mut backlog = PriorityBacklog::new();
        let mut expected = VecDeque::new();
        let mut random = 1u64;
        for step in 0..20_000u32 {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let octets = 14 + (random >> 33) as usize % 65_000;
            let value = (step % 251) as u8 + 1;
            if put(&mut backlog, octets, value) {
                expected.push_back((octets, value));
            } else {
                // Draining makes room at some time, and empty it takes anything.
                for _ in 0..=(random >> 50) % 80 {
                    assert_eq!(take(&mut backlog), expected.pop_front());
                }
            }
        }
        assert!(expected.len() > 80, "it holds many of the largest");
        while let Some(last) = expected.pop_front() {
            assert_eq!(take(&mut backlog), Some(last));
        }
        assert_eq!(take(&mut backlog), None);
        assert!(backlog.is_empty());
    }

    #[test]
    fn it_is_bounded_in_octets_and_in_frames() {
        let mut backlog = PriorityBacklog::new();
        let mut count = 0;
        while put(&mut backlog, 65_000, 1) {
            count += 1;
        }
        assert!((124..=129).contains(&count), "{count}");
        let mut small = PriorityBacklog::new();
        count = 0;
        while put(&mut small, 20, 1) {
            count += 1;
        }
        assert_eq!(count, RECORDS);
    }
}
