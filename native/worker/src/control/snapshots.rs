//! All figures of a data plane at one moment.
//!
//! Source: bridged/dataplane/contract.py; docs/reference/metrics.md.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Arc;

use bridged_sys::tap::dropped_by_queue;
use bridged_sys::thread::{now, unix_seconds};

use crate::contract::{PeerSnapshot, Snapshot, CONTROL_QUEUE_DATAGRAMS, EVENT_QUEUE_EVENTS, STRANGER_QUEUE_DATAGRAMS};
use crate::control::counters::{histogram, peer_counters, Counter, ThreadCells};
use crate::shared::{Shared, ThreadClock};
use crate::sync::lock;
use crate::tables::peers::Peer;

const SEGMENT_CAUSES: [&str; 3] = ["eio", "einval", "emsgsize"];

/// The figures of one peer.
pub fn of_peer(shared: &Shared, peer: &Peer) -> PeerSnapshot {
    let ratios = peer
        .all_keys()
        .iter()
        .map(|slot| slot.used_ratios())
        .fold((0.0, 0.0), |most: (f64, f64), key| (most.0.max(key.0), most.1.max(key.1)));
    let silence = |moment: u64| now().saturating_sub(moment) as f64 / 1e9;
    PeerSnapshot {
        handle: peer.handle,
        endpoint: peer.path.load().endpoint,
        counters: peer_counters(&peer.cells, &peer.drops),
        last_seen: peer.seen_at().map(|moment| unix_seconds() - silence(moment)),
        fdb_entries: shared.fdb.count(peer.port),
        packet_id_used_ratio: ratios.0,
        aead_used_ratio: ratios.1,
    }
}

/// The figures of all. `txqueue_dropped` keeps the last figure of the adapter.
pub fn of_plane(shared: &Arc<Shared>, aead: &'static str, txqueue_dropped: &AtomicU64) -> Snapshot {
    let tap = shared.tap.load_full();
    let sockets = shared.sockets.load_full();
    let socket = sockets.first();
    let table = shared.table.load_full();
    let mut peers: Vec<PeerSnapshot> = table.peers.iter().map(|peer| of_peer(shared, peer)).collect();
    peers.sort_by_key(|peer| peer.handle);
    let (fdb_entries, changes) = shared.fdb.figures();
    let mut drops = BTreeMap::new();
    shared.drops.collect(&mut drops);
    if let Some(dropped) = tap.as_ref().and_then(|tap| dropped_by_queue(&tap.name)) {
        txqueue_dropped.fetch_max(dropped, Relaxed);
    }
    let (control, others) = shared.events.depths();
    Snapshot {
        dataplane: "native",
        aead,
        workers: shared.settings.workers,
        peers,
        drops,
        fdb_entries,
        fdb_capacity: shared.fdb.capacity(),
        fdb_changes: BTreeMap::from([
            ("learned", changes.learned),
            ("aged", changes.aged),
            ("moved", changes.moved),
            ("flushed", changes.flushed),
            ("refused", changes.refused),
        ]),
        offloads: BTreeMap::from([
            ("tap_vnet", tap.as_ref().is_some_and(|tap| tap.vnet > 0)),
            ("tap_tso", tap.as_ref().is_some_and(|tap| tap.has_tso)),
            ("tap_uso", tap.as_ref().is_some_and(|tap| tap.has_uso)),
            ("udp_gso", socket.is_some_and(|socket| socket.has_segment())),
            ("udp_gro", socket.is_some_and(|socket| socket.has_gro())),
            ("coalesce", tap.as_ref().is_some_and(|tap| tap.coalesces())),
            ("udp_steering", shared.is_steered.load(Relaxed)),
        ]),
        offload_fallbacks: fallbacks(shared),
        mtu_events: BTreeMap::from([
            ("mss_clamped", sum(shared, |cells| &cells.mss_clamped)),
            ("mss_fitted", sum(shared, |cells| &cells.mss_fitted)),
            ("ip_fragment_sent", sum(shared, |cells| &cells.ip_fragment_sent)),
            ("path_mtu_changed", sum(shared, |cells| &cells.path_mtu_changed)),
        ]),
        kernel_drops: BTreeMap::from([
            ("tap_txqueue", txqueue_dropped.load(Relaxed)),
            ("udp_receive_buffer", shared.overflow.total()),
        ]),
        queues: BTreeMap::from([
            ("control", (control, CONTROL_QUEUE_DATAGRAMS + STRANGER_QUEUE_DATAGRAMS)),
            ("events", (others, EVENT_QUEUE_EVENTS)),
        ]),
        histograms: BTreeMap::from([
            ("segments_per_send", histogram(shared.cells.iter().map(|cells| &cells.segments_per_send))),
            ("datagrams_per_receive", histogram(shared.cells.iter().map(|cells| &cells.datagrams_per_receive))),
            ("frames_per_tap_write", histogram(shared.cells.iter().map(|cells| &cells.frames_per_tap_write))),
        ]),
        thread_cpu: thread_cpu(shared),
    }
}

fn sum(shared: &Shared, figure: impl Fn(&ThreadCells) -> &Counter) -> u64 {
    shared.cells.iter().map(|cells| figure(cells).get()).sum()
}

fn fallbacks(shared: &Shared) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut table = BTreeMap::new();
    for (index, cause) in SEGMENT_CAUSES.into_iter().enumerate() {
        table.insert(("udp_gso", cause), sum(shared, |cells| &cells.segment_fallbacks[index]));
    }
    for (name, missing) in ["udp_gso", "udp_gro", "udp_steering"].into_iter().zip(&shared.missing_offloads) {
        *table.entry((name, "einval")).or_insert(0) += missing.get();
    }
    table.insert(("coalesce", "einval"), shared.coalesce_fallbacks.get());
    table.retain(|_, count| *count > 0);
    table
}

fn thread_cpu(shared: &Shared) -> BTreeMap<String, f64> {
    let clocks = lock(&shared.clocks);
    let last = clocks.len() - 1;
    let mut table = BTreeMap::new();
    for (place, clock) in clocks.iter().enumerate() {
        let used = match clock {
            ThreadClock::None => None,
            ThreadClock::Running(clock) => clock.read(),
            ThreadClock::Ended(used) => Some(*used),
        };
        let name = match place {
            place if place == last => "timer".to_owned(),
            place if place % 2 == 0 => format!("tap-{}", place / 2),
            place => format!("wire-{}", place / 2),
        };
        table.insert(name, used.unwrap_or(0) as f64 / 1e9);
    }
    table
}
