//! Packets that came before their key: a peer may seal with a new key before this end has made it.
//!
//! Source: bridged/dataplane/contract/verbs.py, `expect_key`.

use bridged_core::packet::PacketRun;
use bridged_core::Nanos;

use crate::contract::{EARLY_LEAST_OCTETS, EARLY_NANOS, EARLY_OCTETS};
use crate::sync::{lock, Mutex};

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
#[derive(Debug)]
pub struct EarlyPackets<O>(Mutex<Waiting<O>>);

#[derive(Debug)]
struct Waiting<O> {
    expected: Option<u8>,
    held: Vec<Early<O>>,
    octets: usize,
}

impl<O: Copy> EarlyPackets<O> {
    /// None is expected.
    pub fn new() -> EarlyPackets<O> {
        EarlyPackets(Mutex::new(Waiting { expected: None, held: Vec::new(), octets: 0 }))
    }

    /// Hold packets under this key id from now on (None: of no key); returns how many packets were held for another.
    pub fn expect(&self, key_id: Option<u8>) -> u64 {
        let mut waiting = lock(&self.0);
        waiting.expected = key_id;
        waiting.octets = 0;
        waiting.held.drain(..).map(|early| early.packets()).sum()
    }

    /// As `expect` of none, if this key is expected.
    pub fn give_up(&self, key_id: u8) -> u64 {
        let is_expected = lock(&self.0).expected == Some(key_id);
        if is_expected {
            self.expect(None)
        } else {
            0
        }
    }

    /// Keep packets; false: their key is not expected, or there is no room.
    pub fn hold(&self, key_id: u8, origin: O, octets: &[u8], run: PacketRun, now: Nanos) -> bool {
        let cost = octets.len().max(EARLY_LEAST_OCTETS);
        let mut waiting = lock(&self.0);
        if waiting.expected != Some(key_id) || waiting.octets + cost > EARLY_OCTETS {
            return false;
        }
        waiting.octets += cost;
        waiting.held.push(Early { origin, octets: octets.into(), run, arrived: now });
        true
    }

    /// The key is there: all that was held for it.
    pub fn release(&self, key_id: u8) -> Vec<Early<O>> {
        let mut waiting = lock(&self.0);
        if waiting.expected != Some(key_id) {
            return Vec::new();
        }
        waiting.expected = None;
        waiting.octets = 0;
        std::mem::take(&mut waiting.held)
    }
}
