//! Packets that came before their key: a peer may seal with a new key before this end has made it.
//!
//! Source: bridged/dataplane/contract/verbs.py, `expect_key`.

use std::sync::atomic::Ordering::Relaxed;

use bridged_core::packet::PacketRun;
use bridged_core::Nanos;

use crate::contract::{EARLY_LEAST_OCTETS, EARLY_NANOS, EARLY_OCTETS};
use crate::sync::{lock, AtomicBool, Mutex};

/// Packets of one origin.
#[derive(Debug)]
pub struct Early<O> {
    pub origin: O,
    pub octets: Box<[u8]>,
    pub run: PacketRun,
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

/// Those of one peer, in their order, for one key id at a time.
///
/// The thread that reads the peer's packets holds them, and opens them before any later packet under their key.
#[derive(Debug)]
pub struct EarlyPackets<O> {
    is_any: AtomicBool,
    waiting: Mutex<Waiting<O>>,
}

#[derive(Debug)]
struct Waiting<O> {
    key_id: Option<u8>,
    /// The key has not come yet.
    is_expected: bool,
    held: Vec<Early<O>>,
    octets: usize,
    /// Who holds them.
    worker: usize,
}

impl<O: Copy> EarlyPackets<O> {
    /// None is expected.
    pub fn new() -> EarlyPackets<O> {
        let waiting = Waiting { key_id: None, is_expected: false, held: Vec::new(), octets: 0, worker: 0 };
        EarlyPackets { is_any: AtomicBool::new(false), waiting: Mutex::new(waiting) }
    }

    /// Hold packets under this key id from now on (None: of no key); returns how many packets were held for another.
    pub fn expect(&self, key_id: Option<u8>) -> u64 {
        let mut waiting = lock(&self.waiting);
        waiting.key_id = key_id;
        waiting.is_expected = key_id.is_some();
        self.empty(&mut waiting).iter().map(Early::packets).sum()
    }

    /// As `expect` of none, if packets under this key are held or expected.
    pub fn give_up(&self, key_id: u8) -> u64 {
        let is_concerned = lock(&self.waiting).key_id == Some(key_id);
        if is_concerned {
            self.expect(None)
        } else {
            0
        }
    }

    /// Keep packets that `worker` read; false: their key is not expected, or there is no room.
    pub fn hold(&self, key_id: u8, worker: usize, origin: O, octets: &[u8], run: PacketRun, now: Nanos) -> bool {
        let cost = octets.len().max(EARLY_LEAST_OCTETS);
        let mut waiting = lock(&self.waiting);
        if !waiting.is_expected || waiting.key_id != Some(key_id) || waiting.octets + cost > EARLY_OCTETS {
            return false;
        }
        waiting.octets += cost;
        waiting.worker = worker;
        waiting.held.push(Early { origin, octets: octets.into(), run, arrived: now });
        self.is_any.store(true, Relaxed);
        true
    }

    /// The key is there: hold no more. Returns the worker that has to take what was held, if anything was.
    pub fn release(&self, key_id: u8) -> Option<usize> {
        let mut waiting = lock(&self.waiting);
        if waiting.key_id != Some(key_id) {
            return None;
        }
        waiting.is_expected = false;
        (!waiting.held.is_empty()).then_some(waiting.worker)
    }

    /// Whether there is something to take; cheap.
    #[inline]
    pub fn is_any(&self) -> bool {
        self.is_any.load(Relaxed)
    }

    /// All that was held for this key, which is there.
    pub fn take(&self, key_id: u8) -> Vec<Early<O>> {
        let mut waiting = lock(&self.waiting);
        if waiting.key_id == Some(key_id) {
            self.empty(&mut waiting)
        } else {
            Vec::new()
        }
    }

    fn empty(&self, waiting: &mut Waiting<O>) -> Vec<Early<O>> {
        self.is_any.store(false, Relaxed);
        waiting.octets = 0;
        std::mem::take(&mut waiting.held)
    }
}
