//! The figures of a data plane at one moment.

use std::collections::BTreeMap;

use crate::contract::peers::PeerSnapshot;

/// `counts[i]` observations in (`bounds[i-1]`, `bounds[i]`], the last one above all; `total` sums them.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds.
    pub bounds: Vec<f64>,
    /// One more than bounds.
    pub counts: Vec<u64>,
    /// Sum of all that was observed.
    pub total: f64,
}

/// All figures of one data plane at one moment; taking it never blocks traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// `native`.
    pub dataplane: &'static str,
    /// Cipher of the newest key; empty: none yet.
    pub aead: &'static str,
    /// Pairs of threads.
    pub workers: usize,
    /// All peers, in order of their handles.
    pub peers: Vec<PeerSnapshot>,
    /// Lost frames and packets by direction and reason, those of no peer included.
    pub drops: BTreeMap<(&'static str, &'static str), u64>,
    /// Addresses known.
    pub fdb_entries: usize,
    /// Addresses at most.
    pub fdb_capacity: usize,
    /// Totals by family and name (bridged/catalogue/counters.py).
    pub counts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// By name (bridged/catalogue/figures.py), as queues and histograms.
    pub offloads: BTreeMap<&'static str, bool>,
    /// By (offload, cause).
    pub offload_fallbacks: BTreeMap<(&'static str, &'static str), u64>,
    /// (Depth, capacity).
    pub queues: BTreeMap<&'static str, (usize, usize)>,
    /// Sizes of batches.
    pub histograms: BTreeMap<&'static str, Histogram>,
    /// Processor seconds by thread name: `tap-0`, `wire-0`, ..., `timer`.
    pub thread_cpu: BTreeMap<String, f64>,
}
