//! Packets that came before their key: a peer may seal with a new key before this end has made it.
//!
//! Source: bridged/dataplane/contract/verbs.py, `expect_key`.

use std::sync::atomic::Ordering::Relaxed;

use bridged_core::packet::PacketRun;
use bridged_core::Nanos;

use crate::contract::{EARLY_LEAST_OCTETS, EARLY_NANOS, EARLY_OCTETS};
use crate::sync::{lock, AtomicU64, Mutex};

/// Packets of one origin.
#[derive(Debug)]
pub struct Early<O> {
    pub origin: O,
    pub octets: Box<[u8]>,
    pub run: PacketRun,
    key_id: u8,
    arrived: Nanos,
}

impl<O> Early<O> {
    /// How many.
    pub fn packets(&self) -> u64 {
        self.run.packets() as u64
    }

    /// They waited too long to be of use.
    pub fn is_stale(&self, now: Nanos) -> bool {
        now.saturating_sub(self.arrived) > EARLY_NANOS
    }
}

/// Those of one peer, in their order.
///
/// The thread that reads the peer's packets holds them, and opens them before any later packet under their key.
/// While a peer changes over to another thread, one may overtake: UDP only, a stream stays with its thread.
#[derive(Debug)]
pub struct EarlyPackets<O> {
    /// A bit for each key id under which packets are held.
    key_ids: AtomicU64,
    waiting: Mutex<Waiting<O>>,
}

#[derive(Debug)]
struct Waiting<O> {
    /// The key that has not come yet.
    expected: Option<u8>,
    held: Vec<Early<O>>,
    octets: usize,
    /// Who holds them.
    worker: usize,
}

impl<O: Copy> EarlyPackets<O> {
    /// None is expected.
    pub fn new() -> EarlyPackets<O> {
        let waiting = Waiting { expected: None, held: Vec::new(), octets: 0, worker: 0 };
        EarlyPackets { key_ids: AtomicU64::new(0), waiting: Mutex::new(waiting) }
    }

    /// Hold packets under this key id from now on. Returns how many were held for a key that is expected no more.
    pub fn expect(&self, key_id: u8) -> u64 {
        let mut waiting = lock(&self.waiting);
        let before = waiting.expected.replace(key_id);
        count(&self.remove(&mut waiting, |id| id == key_id || Some(id) == before))
    }

    /// Neither expect this key nor hold packets under it; how many were held.
    pub fn give_up(&self, key_id: u8) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.expected = waiting.expected.filter(|expected| *expected != key_id);
        count(&self.remove(&mut waiting, |id| id == key_id))
    }

    /// Expect no key and hold nothing; how many were held.
    pub fn clear(&self) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.expected = None;
        count(&self.remove(&mut waiting, |_| true))
    }

    /// Keep packets that `worker` read; false: their key is not expected, or there is no room.
    pub fn hold(&self, key_id: u8, worker: usize, origin: O, octets: &[u8], run: PacketRun, now: Nanos) -> bool {
        let mut waiting = lock(&self.waiting);
        let cost = cost(octets);
        if waiting.expected != Some(key_id) || waiting.octets + cost > EARLY_OCTETS {
            return false;
        }
        let early = Early { origin, octets: octets.into(), run, key_id, arrived: now };
        waiting.octets += cost;
        waiting.worker = worker;
        waiting.held.push(early);
        self.key_ids.store(self.key_ids.load(Relaxed) | 1 << key_id, Relaxed);
        true
    }

    /// The key is there: hold no more. Returns the worker that has to take what was held, if anything was.
    pub fn release(&self, key_id: u8) -> Option<usize> {
        let mut waiting = lock(&self.waiting);
        waiting.expected = waiting.expected.filter(|expected| *expected != key_id);
        waiting.held.iter().any(|early| early.key_id == key_id).then_some(waiting.worker)
    }

    /// Whether there is something to take; cheap.
    #[inline]
    pub fn has(&self, key_id: u8) -> bool {
        self.key_ids.load(Relaxed) & 1 << key_id != 0
    }

    /// All that was held for this key, which is there.
    pub fn take(&self, key_id: u8) -> Vec<Early<O>> {
        self.remove(&mut lock(&self.waiting), |id| id == key_id)
    }

    fn remove(&self, waiting: &mut Waiting<O>, is_meant: impl Fn(u8) -> bool) -> Vec<Early<O>> {
        let (removed, kept) = std::mem::take(&mut waiting.held).into_iter().partition(|early| is_meant(early.key_id));
        waiting.held = kept;
        waiting.octets = waiting.held.iter().map(|early| cost(&early.octets)).sum();
        let key_ids = waiting.held.iter().fold(0, |bits, early| bits | 1 << early.key_id);
        self.key_ids.store(key_ids, Relaxed);
        removed
    }
}

/// Bytes that packets count for.
fn cost(octets: &[u8]) -> usize {
    octets.len().max(EARLY_LEAST_OCTETS)
}

fn count<O>(held: &[Early<O>]) -> u64 {
    held.iter().map(Early::packets).sum()
}
