//! Totals that only grow. Each thread writes its own, on separate cache lines; only drops are shared, because they
//! are rare. Snapshots add them up.
//!
//! Source: docs/reference/metrics.md.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bridged_core::stats::{bucket, FrameKind, BATCH_BOUNDS, BATCH_BUCKETS, FRAME_KINDS};

pub use crate::control::names::{BatchName, Count, Reason};

use crate::contract::{Direction, Histogram, PeerCounters};

/// A counter with one writer.
#[derive(Debug, Default)]
pub struct Counter(AtomicU64);

impl Counter {
    /// Add; only the one thread that it belongs to.
    #[inline]
    pub fn add(&self, amount: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(amount), Relaxed);
    }

    /// Replace; only the one thread that it belongs to.
    #[inline]
    pub fn set(&self, value: u64) {
        self.0.store(value, Relaxed);
    }

    /// Add, from any thread.
    pub fn add_shared(&self, amount: u64) {
        self.0.fetch_add(amount, Relaxed);
    }

    /// The figure now.
    #[inline]
    pub fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

const REASONS: usize = Reason::ALL.len();
const COUNTS: usize = Count::ALL.len();
const BATCHES: usize = BatchName::ALL.len();

/// Lost frames and packets. Losses are rare: all threads share these counters.
#[derive(Debug)]
pub struct Drops([[Counter; REASONS]; 2]);

impl Default for Drops {
    fn default() -> Drops {
        Drops(std::array::from_fn(|_| std::array::from_fn(|_| Counter::default())))
    }
}

impl Drops {
    /// Count.
    pub fn add(&self, direction: Direction, reason: Reason, amount: u64) {
        self.0[direction as usize][reason as usize].add_shared(amount);
    }

    /// Add what there is to a table of names.
    pub fn collect(&self, table: &mut BTreeMap<(&'static str, &'static str), u64>) {
        for direction in Direction::ALL {
            for reason in Reason::ALL {
                let amount = self.0[direction as usize][*reason as usize].get();
                if amount > 0 {
                    *table.entry((direction.name(), reason.name())).or_default() += amount;
                }
            }
        }
    }
}

/// Frames and bytes of one direction by kind, and outer datagrams.
#[derive(Debug, Default)]
pub struct DirectionCounters {
    frames: [Counter; FRAME_KINDS],
    octets: [Counter; FRAME_KINDS],
    /// Outer datagrams.
    pub wire: Counter,
    /// Their bytes.
    pub wire_octets: Counter,
}

impl DirectionCounters {
    /// Count frames of one kind.
    #[inline]
    pub fn count(&self, kind: FrameKind, frames: u64, octets: u64) {
        self.frames[kind as usize].add(frames);
        self.octets[kind as usize].add(octets);
    }
}

/// What one thread counts of one peer. Aligned to two cache lines, so that threads do not share one.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct PeerCells {
    /// By direction.
    pub directions: [DirectionCounters; 2],
    /// Monotonic nanoseconds of the newest packet sent.
    pub sent_at: Counter,
    /// Of the newest authentic packet received; 0: none yet.
    pub heard_at: Counter,
    /// Packet ids of the peer that were jumped over.
    pub skipped: Counter,
    /// Its packets whose id had been jumped over.
    pub late: Counter,
}

impl PeerCells {
    /// The counters of a direction.
    #[inline]
    pub fn direction(&self, direction: Direction) -> &DirectionCounters {
        &self.directions[direction as usize]
    }
}

/// Sum what all threads counted of a peer.
pub fn peer_counters(cells: &[PeerCells], drops: &Drops) -> PeerCounters {
    let mut sums = PeerCounters::default();
    for direction in Direction::ALL {
        let name = direction.name();
        for kind in FrameKind::ALL {
            let key = (name, kind.name());
            let directions = || cells.iter().map(|cell| cell.direction(direction));
            sums.frames.insert(key, directions().map(|way| way.frames[kind as usize].get()).sum());
            sums.bytes.insert(key, directions().map(|way| way.octets[kind as usize].get()).sum());
        }
        sums.wire_datagrams.insert(name, cells.iter().map(|cell| cell.direction(direction).wire.get()).sum());
        sums.wire_bytes.insert(name, cells.iter().map(|cell| cell.direction(direction).wire_octets.get()).sum());
    }
    sums.sequence.insert("skipped", cells.iter().map(|cell| cell.skipped.get()).sum());
    sums.sequence.insert("late", cells.iter().map(|cell| cell.late.get()).sum());
    drops.collect(&mut sums.drops);
    sums
}

/// How often a batch had how many members.
#[derive(Debug, Default)]
pub struct BatchSizes {
    counts: [Counter; BATCH_BUCKETS],
    total: Counter,
}

impl BatchSizes {
    /// Count `times` batches of one size.
    #[inline]
    pub fn observe(&self, size: usize, times: u64) {
        self.counts[bucket(size)].add(times);
        self.total.add(size as u64 * times);
    }
}

/// Sum the histograms of all threads.
pub fn histogram<'a>(parts: impl Iterator<Item = &'a BatchSizes>) -> Histogram {
    let mut sum = Histogram {
        bounds: BATCH_BOUNDS.iter().map(|bound| f64::from(*bound)).collect(),
        counts: vec![0; BATCH_BUCKETS],
        total: 0.0,
    };
    for part in parts {
        for (count, counter) in sum.counts.iter_mut().zip(&part.counts) {
            *count += counter.get();
        }
        sum.total += part.total.get() as f64;
    }
    sum
}

/// What all threads count of one data plane.
#[derive(Debug)]
pub struct Counters {
    /// Lost frames and packets, also those of no peer.
    pub drops: Drops,
    /// By thread: LAN and WAN thread of worker 0, of worker 1, ..., and last the control plane's own sends.
    pub threads: Box<[ThreadCells]>,
}

impl Counters {
    /// For as many threads.
    pub fn new(threads: usize) -> Counters {
        Counters { drops: Drops::default(), threads: (0..threads).map(|_| ThreadCells::default()).collect() }
    }

    /// Count lost frames or packets, also in the drops of a peer where it is known.
    pub fn count_drops(&self, direction: Direction, reason: Reason, amount: u64, peer: Option<&Drops>) {
        if amount > 0 {
            self.drops.add(direction, reason, amount);
            if let Some(peer) = peer {
                peer.add(direction, reason, amount);
            }
        }
    }

    /// Sum one counter of all threads.
    pub fn sum(&self, counter: impl Fn(&ThreadCells) -> &Counter) -> u64 {
        self.threads.iter().map(|cells| counter(cells).get()).sum()
    }
}

/// What one thread counts of the whole data plane.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct ThreadCells {
    sizes: [BatchSizes; BATCHES],
    counts: [Counter; COUNTS],
    /// UDP_SEGMENT sends that failed: EIO, EINVAL, EMSGSIZE.
    pub segment_fallbacks: [Counter; 3],
}

impl ThreadCells {
    /// Sizes of one kind of batch; only the one thread that it belongs to counts in them.
    #[inline]
    pub fn sizes(&self, batch: BatchName) -> &BatchSizes {
        &self.sizes[batch as usize]
    }

    /// Count; only the one thread that it belongs to.
    #[inline]
    pub fn count(&self, count: Count, times: u64) {
        self.counts[count as usize].add(times);
    }

    /// How often it was counted here.
    pub fn counted(&self, count: Count) -> &Counter {
        &self.counts[count as usize]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_has_one_name() {
        for reason in Reason::ALL {
            assert_eq!(Reason::named(reason.name()), Some(*reason));
        }
        assert_eq!(Reason::named("fun"), None);
    }

    #[test]
    fn sums_go_over_all_threads() {
        let cells: [PeerCells; 3] = std::array::from_fn(|_| PeerCells::default());
        for cell in &cells {
            cell.direction(Direction::Transmit).count(FrameKind::Broadcast, 2, 100);
            cell.direction(Direction::Receive).wire.add(1);
            cell.skipped.add(2);
        }
        let drops = Drops::default();
        drops.add(Direction::Receive, Reason::Replay, 4);
        let sums = peer_counters(&cells, &drops);
        assert_eq!(sums.frames[&("transmit", "broadcast")], 6);
        assert_eq!(sums.bytes[&("transmit", "broadcast")], 300);
        assert_eq!(sums.wire_datagrams["receive"], 3);
        assert_eq!(sums.sequence, BTreeMap::from([("late", 0), ("skipped", 6)]));
        assert_eq!(sums.drops, BTreeMap::from([(("receive", "replay"), 4)]));
    }
}
