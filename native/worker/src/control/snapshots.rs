//! All counters and states of a data plane at one moment.
//!
//! Source: bridged/dataplane/contract/snapshots.py; docs/reference/metrics.md.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use bridged_core::fdb::FdbChanges;
use bridged_sys::tap::dropped_by_queue;
use bridged_sys::thread::{now, unix_seconds};

use crate::contract::{
    Histogram, PeerSnapshot, Snapshot, CONTROL_QUEUE_DATAGRAMS, EVENT_QUEUE_EVENTS, STRANGER_QUEUE_DATAGRAMS,
};
use crate::control::counters::{histogram, peer_counters, Count};
use crate::control::names::{BatchName, OffloadName, QueueName};
use crate::shared::Shared;
use crate::tables::peers::Peer;
use crate::tap::Tap;
use crate::transport::seam::{PeerPath, Transport, TransportFigures};

const SEGMENT_CAUSES: [&str; 3] = ["eio", "einval", "emsgsize"];

/// Counters and state of one peer.
pub fn of_peer<T: Transport>(shared: &Shared<T>, peer: &Peer<T>) -> PeerSnapshot {
    let ratios = peer
        .all_keys()
        .iter()
        .map(|slot| slot.used_ratios())
        .fold((0.0, 0.0), |most: (f64, f64), key| (most.0.max(key.0), most.1.max(key.1)));
    let silence = |moment: u64| now().saturating_sub(moment) as f64 / 1e9;
    PeerSnapshot {
        handle: peer.handle,
        endpoint: peer.path.load().endpoint(),
        counters: peer_counters(&peer.cells, &peer.drops),
        last_seen: peer.seen_at().map(|moment| unix_seconds() - silence(moment)),
        fdb_entries: shared.stations.count(peer.port),
        replay_mark: peer.all_keys().iter().map(|slot| slot.replay_mark()).max().unwrap_or(0),
        packet_id_used_ratio: ratios.0,
        aead_used_ratio: ratios.1,
    }
}

/// Those of all peers and of the data plane. `txqueue_dropped` keeps the adapter's last count.
pub fn of_plane<T: Transport>(shared: &Shared<T>, aead: &'static str, txqueue_dropped: &AtomicU64) -> Snapshot {
    let tap = shared.adapter.tap.load_full();
    let transport = shared.transport.figures();
    let table = shared.peers.table.load_full();
    let mut peers: Vec<PeerSnapshot> = table.peers.iter().map(|peer| of_peer(shared, peer)).collect();
    peers.sort_by_key(|peer| peer.handle);
    let (fdb_entries, changes) = shared.stations.figures();
    let mut drops = BTreeMap::new();
    shared.counters.drops.collect(&mut drops);
    if let Some(dropped) = tap.as_ref().and_then(|tap| dropped_by_queue(&tap.name)) {
        txqueue_dropped.fetch_max(dropped, Relaxed);
    }
    Snapshot {
        dataplane: "native",
        aead,
        workers: shared.settings.workers,
        peers,
        drops,
        fdb_entries,
        fdb_capacity: shared.stations.capacity(),
        counts: counts(shared, changes, [txqueue_dropped.load(Relaxed), transport.receive_overflow]),
        offloads: OffloadName::ALL.iter().map(|one| (one.name(), is_on(*one, tap.as_deref(), &transport))).collect(),
        offload_fallbacks: fallbacks(shared, &transport),
        queues: QueueName::ALL.iter().map(|queue| (queue.name(), depth_and_capacity(*queue, shared))).collect(),
        histograms: BatchName::ALL.iter().map(|batch| (batch.name(), sizes(*batch, shared))).collect(),
        thread_cpu: shared.threads.cpu_seconds(),
    }
}

/// Totals by family and name. `lost`: what the kernel dropped of the TAP's queue and of the socket's buffer.
fn counts<T: Transport>(
    shared: &Shared<T>,
    changes: FdbChanges,
    lost: [u64; 2],
) -> BTreeMap<&'static str, BTreeMap<&'static str, u64>> {
    let changes = [
        ("learned", changes.learned),
        ("aged", changes.aged),
        ("moved", changes.moved),
        ("flushed", changes.flushed),
        ("refused", changes.refused),
    ];
    let lost = [("tap_txqueue", lost[0]), ("udp_receive_buffer", lost[1])];
    let mut families = BTreeMap::from([("fdb_changes", changes.into()), ("kernel_drops", lost.into())]);
    for count in Count::ALL {
        let total = shared.counters.sum(|cells| cells.counted(*count));
        families.entry(count.family()).or_insert_with(BTreeMap::new).insert(count.name(), total);
    }
    families
}

fn is_on(offload: OffloadName, tap: Option<&Tap>, transport: &TransportFigures) -> bool {
    match offload {
        OffloadName::TapVnet => tap.is_some_and(|tap| tap.vnet > 0),
        OffloadName::TapTso => tap.is_some_and(|tap| tap.has_tso),
        OffloadName::TapUso => tap.is_some_and(|tap| tap.has_uso),
        OffloadName::Coalesce => tap.is_some_and(Tap::coalesces),
        OffloadName::UdpGso => transport.has_segment,
        OffloadName::UdpGro => transport.has_gro,
        OffloadName::UdpSteering => transport.is_steered,
    }
}

fn depth_and_capacity<T: Transport>(queue: QueueName, shared: &Shared<T>) -> (usize, usize) {
    let (control, events) = shared.events.depths();
    match queue {
        QueueName::Control => (control, CONTROL_QUEUE_DATAGRAMS + STRANGER_QUEUE_DATAGRAMS),
        QueueName::Events => (events, EVENT_QUEUE_EVENTS),
    }
}

fn sizes<T: Transport>(batch: BatchName, shared: &Shared<T>) -> Histogram {
    histogram(shared.counters.threads.iter().map(|cells| cells.sizes(batch)))
}

fn fallbacks<T: Transport>(
    shared: &Shared<T>,
    transport: &TransportFigures,
) -> BTreeMap<(&'static str, &'static str), u64> {
    let mut table = BTreeMap::new();
    for (index, cause) in SEGMENT_CAUSES.into_iter().enumerate() {
        table.insert((OffloadName::UdpGso.name(), cause), shared.counters.sum(|cells| &cells.segment_fallbacks[index]));
    }
    for (name, missing) in
        [OffloadName::UdpGso, OffloadName::UdpGro, OffloadName::UdpSteering].into_iter().zip(transport.missing)
    {
        *table.entry((name.name(), "einval")).or_insert(0) += missing;
    }
    table.insert((OffloadName::Coalesce.name(), "einval"), shared.adapter.coalesce_fallbacks.get());
    table.retain(|_, count| *count > 0);
    table
}
