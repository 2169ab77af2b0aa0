//! A token bucket for each source of control datagrams, so that a flood from one cannot use up what all share.
//!
//! Source: `bridged/dataplane/portable/control/events.py`. Holds [`SOURCES_REMEMBERED`] sources; the one longest
//! unheard is forgotten first.

use std::collections::HashMap;

use crate::hashing::Seed;
use crate::{Nanos, SECOND};

/// Sources that are remembered.
pub const SOURCES_REMEMBERED: usize = 4096;

const NONE: u32 = u32::MAX;

/// Who a datagram came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Source {
    /// IPv6 address, or IPv4-mapped.
    pub address: u128,
    /// The port where each endpoint has a bucket of its own (known peers), else 0.
    pub port: u32,
}

/// How many tokens a source has at most, and how many it gets a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rate {
    /// Tokens, at least 1.
    pub burst: u32,
    /// Tokens per second.
    pub per_second: u32,
}

impl Rate {
    /// Of an address that no peer has.
    pub const STRANGER: Self = Self { burst: 256, per_second: 128 };
    /// Of a peer.
    pub const PEER: Self = Self { burst: 1024, per_second: 1024 };
}

#[derive(Debug)]
struct Bucket {
    source: Source,
    /// In units of 1/SECOND tokens.
    tokens: u64,
    at: Nanos,
    /// Neighbours in the order of use.
    newer: u32,
    older: u32,
}

/// See the module.
#[derive(Debug)]
pub struct SourceLimit {
    index: HashMap<Source, u32, Seed>,
    buckets: Vec<Bucket>,
    capacity: usize,
    newest: u32,
    oldest: u32,
}

impl SourceLimit {
    /// Buckets for [`SOURCES_REMEMBERED`] sources; `seed` is random. Allocates all it will ever need.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self::with_capacity(SOURCES_REMEMBERED, seed)
    }

    /// Buckets for `capacity` sources, at least 1.
    #[must_use]
    pub fn with_capacity(capacity: usize, seed: u64) -> Self {
        let capacity = capacity.clamp(1, 1 << 20);
        Self {
            // Twice the room: entries that were removed take some until the table cleans itself up in place.
            index: HashMap::with_capacity_and_hasher(capacity * 2, Seed::new(seed)),
            buckets: Vec::with_capacity(capacity),
            capacity,
            newest: NONE,
            oldest: NONE,
        }
    }

    /// Sources remembered now.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buckets.len()
    }

    /// No source yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buckets.is_empty()
    }

    /// Whether this source has a bucket.
    #[must_use]
    pub fn knows(&self, source: Source) -> bool {
        self.index.contains_key(&source)
    }

    /// Take one token of `source`; false where it has none left.
    pub fn allows(&mut self, source: Source, now: Nanos, rate: Rate) -> bool {
        let full = u64::from(rate.burst) * SECOND;
        let Some(&at) = self.index.get(&source) else {
            self.add(Bucket { source, tokens: full.saturating_sub(SECOND), at: now, newer: NONE, older: NONE });
            return true;
        };
        self.unlink(at);
        self.link_newest(at);
        let Some(bucket) = self.buckets.get_mut(at as usize) else { return false };
        let gained = now.saturating_sub(bucket.at).saturating_mul(u64::from(rate.per_second));
        let tokens = bucket.tokens.saturating_add(gained).min(full);
        bucket.at = now;
        let is_allowed = tokens >= SECOND;
        bucket.tokens = if is_allowed { tokens - SECOND } else { tokens };
        is_allowed
    }

    fn add(&mut self, bucket: Bucket) {
        let source = bucket.source;
        let at = if self.buckets.len() < self.capacity {
            self.buckets.push(bucket);
            (self.buckets.len() - 1) as u32
        } else {
            let at = self.oldest;
            self.unlink(at);
            if let Some(place) = self.buckets.get_mut(at as usize) {
                self.index.remove(&place.source);
                *place = bucket;
            }
            at
        };
        self.index.insert(source, at);
        self.link_newest(at);
    }

    fn unlink(&mut self, at: u32) {
        let Some(bucket) = self.buckets.get(at as usize) else { return };
        let (newer, older) = (bucket.newer, bucket.older);
        match self.buckets.get_mut(newer as usize) {
            Some(neighbour) => neighbour.older = older,
            None => self.newest = older,
        }
        match self.buckets.get_mut(older as usize) {
            Some(neighbour) => neighbour.newer = newer,
            None => self.oldest = newer,
        }
    }

    fn link_newest(&mut self, at: u32) {
        let before = self.newest;
        if let Some(bucket) = self.buckets.get_mut(at as usize) {
            (bucket.newer, bucket.older) = (NONE, before);
        }
        match self.buckets.get_mut(before as usize) {
            Some(neighbour) => neighbour.newer = at,
            None => self.oldest = at,
        }
        self.newest = at;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const RATE: Rate = Rate { burst: 3, per_second: 2 };

    fn source(number: u128) -> Source {
        Source { address: number, port: 0 }
    }

    #[test]
    fn a_burst_passes_and_then_the_rate() {
        let mut limit = SourceLimit::new(1);
        let passed: Vec<bool> = (0..5).map(|_| limit.allows(source(1), 0, RATE)).collect();
        assert_eq!(passed, [true, true, true, false, false]);
        assert!(!limit.allows(source(1), SECOND / 2 - 1, RATE));
        assert!(limit.allows(source(1), SECOND / 2, RATE));
        assert!(!limit.allows(source(1), SECOND / 2, RATE));
        assert!(limit.allows(source(2), 0, RATE));
    }

    #[test]
    fn a_long_silence_fills_the_bucket_and_no_more() {
        let mut limit = SourceLimit::new(1);
        assert!(limit.allows(source(1), 0, RATE));
        let passed = (0..10).filter(|_| limit.allows(source(1), u64::MAX, RATE)).count();
        assert_eq!(passed, 3);
    }

    #[test]
    fn a_clock_that_steps_back_gives_nothing() {
        let mut limit = SourceLimit::new(1);
        for _ in 0..3 {
            assert!(limit.allows(source(1), 10 * SECOND, RATE));
        }
        assert!(!limit.allows(source(1), 0, RATE));
    }

    proptest! {
        #[test]
        fn the_source_longest_unheard_is_forgotten_first(numbers in proptest::collection::vec(0u128..12, 1..200)) {
            let mut limit = SourceLimit::with_capacity(4, 7);
            let mut model: Vec<(u128, u32)> = Vec::new();
            for number in numbers {
                let known = model.iter().position(|&(name, _)| name == number);
                let left = match known {
                    Some(at) => model.remove(at).1,
                    None => {
                        if model.len() == 4 {
                            model.remove(0);
                        }
                        3
                    }
                };
                prop_assert_eq!(limit.allows(source(number), 0, RATE), left > 0);
                model.push((number, left.saturating_sub(1)));
                prop_assert_eq!(limit.len(), model.len());
            }
        }
    }
}
