//! Opens the data packets of one peer where they were received, and follows the peer to where they came from.
//!
//! Source: docs/protocol/data.md#2-5, #3-2, #5-1.

use std::borrow::Cow;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::packet::{is_unknown_session_notice, opcode, HEADER_V2, OPCODE_DATA_V2};
use bridged_core::Nanos;

use crate::contract::Direction::Receive;
use crate::contract::Event;
use crate::control::counters::Reason;
use crate::shared::Shared;
use crate::sync::Guard;
use crate::tables::keys::KeySlot;
use crate::tables::peers::Peer;
use crate::transport::seam::{BatchReceiver, Origin, PeerPath, Transport};
use crate::wan_to_lan::scene::{Batch, WanScene};
use crate::wan_to_lan::strangers::notify_stranger;
use crate::wan_to_lan::tap_writer::Frame;

/// Whose packets a batch says it has.
pub type FoundPeer<'a, T> = Cow<'a, Arc<Peer<T>>>;
/// A key, for as long as a batch takes.
pub type KeyGuard = Guard<Option<Arc<KeySlot>>>;

/// Find peer and key of a batch. None: they are not known, or the batch waits for its key.
pub fn find<'a, T: Transport>(
    scene: &WanScene<'a, T>,
    receiver: &mut T::Receiver,
    batch: &Batch<T::Origin>,
    worker: usize,
) -> Option<(FoundPeer<'a, T>, KeyGuard)> {
    let shared = scene.shared;
    let peer = match sender_of(scene, receiver, batch) {
        Ok(peer) => peer,
        Err(reason) => {
            shared.counters.count_drops(Receive, reason, batch.packets(), None);
            if reason == Reason::UnknownPeerId {
                notify_stranger(scene, receiver, batch);
            }
            return None;
        }
    };
    let first = &receiver.octets()[batch.first()];
    let key_id = if shared.settings.static_key { 0 } else { first[0] & 7 };
    let mut slot = peer.key_guard(key_id);
    if slot.is_none() {
        if hold_early(scene, receiver, batch, &peer, key_id, worker) {
            return None;
        }
        // Perhaps it has come in this instant.
        slot = peer.key_guard(key_id);
    }
    if slot.is_none() {
        let first = &receiver.octets()[batch.first()];
        if is_unknown_session_notice(first) && peer.path.load().endpoint() == *batch.origin.endpoint() {
            shared.report(Event::SessionUnknown { handle: peer.handle });
            return None;
        }
        shared.counters.count_drops(Receive, Reason::UnknownKeyId, batch.packets(), Some(&peer.drops));
        notify_stranger(scene, receiver, batch);
        return None;
    }
    Some((peer, slot))
}

/// The peer that a batch says it is from.
fn sender_of<'a, T: Transport>(
    scene: &WanScene<'a, T>,
    receiver: &mut T::Receiver,
    batch: &Batch<T::Origin>,
) -> Result<FoundPeer<'a, T>, Reason> {
    let first = &receiver.octets()[batch.first()];
    if scene.shared.settings.static_key {
        return scene.table.peers.first().map(Cow::Borrowed).ok_or(Reason::UnknownPeerId);
    }
    let endpoints = &scene.shared.peers.endpoints;
    let peer = if opcode(first[0]) == OPCODE_DATA_V2 {
        let Some(&[_, a, b, c]) = first.first_chunk::<HEADER_V2>() else { return Err(Reason::ShortPacket) };
        scene.table.find(u32::from_be_bytes([0, a, b, c]), batch.origin.endpoint(), endpoints)
    } else {
        endpoints.at(batch.origin.endpoint()).map(Cow::Owned)
    };
    peer.ok_or(Reason::UnknownPeerId)
}

/// Keep packets whose key is on the way; false: it is not, or there is no room.
#[cold]
fn hold_early<T: Transport>(
    scene: &WanScene<'_, T>,
    receiver: &mut T::Receiver,
    batch: &Batch<T::Origin>,
    peer: &Peer<T>,
    key_id: u8,
    worker: usize,
) -> bool {
    let octets = &receiver.octets()[batch.all()];
    peer.path.load().endpoint() == *batch.origin.endpoint()
        && !is_unknown_session_notice(&octets[..batch.run.size.min(octets.len())])
        && peer.early.hold(key_id, worker, batch.origin, octets, batch.run, scene.now)
}

/// Open a batch with its peer's key into `opened`, replacing what it held; false: nothing to deliver.
pub fn open<T: Transport>(
    scene: &WanScene<'_, T>,
    receiver: &mut T::Receiver,
    batch: &Batch<T::Origin>,
    peer: &Arc<Peer<T>>,
    slot: &KeySlot,
    thread: usize,
    opened: &mut Vec<Frame>,
) -> bool {
    let shared = scene.shared;
    opened.clear();
    let octets = &mut receiver.octets()[batch.start..];
    let is_v2 = opcode(octets[0]) == OPCODE_DATA_V2;
    let found = slot.open(
        octets,
        batch.run,
        is_v2,
        |at, length| opened.push(Frame { start: batch.start + at, length }),
        |reason| shared.counters.count_drops(Receive, reason, 1, Some(&peer.drops)),
    );
    if let Some(trigger) = slot.limit_reached() {
        shared.report(Event::KeyNearLimit { handle: peer.handle, key_id: slot.key_id, trigger });
    }
    if found.fresh == 0 {
        // Perhaps another peer's id, from before this end began.
        notify_stranger(scene, receiver, batch);
        return false;
    }
    let path = peer.path.load();
    if path.endpoint() == *batch.origin.endpoint() {
        shared.transport.answer_along(&peer.path, &path, &batch.origin);
    } else if !follow(shared, peer, &batch.origin, scene.now) {
        shared.counters.count_drops(Receive, Reason::FloatRefused, opened.len() as u64, Some(&peer.drops));
        return false;
    }
    let cells = &peer.cells[thread];
    cells.heard_at.set(scene.now);
    if peer.timers.is_expired.load(Relaxed) {
        peer.timers.is_expired.store(false, Relaxed);
    }
    let direction = cells.direction(Receive);
    direction.wire.add(found.fresh as u64);
    direction.wire_octets.add(found.octets as u64);
    if found.skipped + found.late > 0 {
        cells.skipped.add(found.skipped);
        cells.late.add(found.late);
    }
    true
}

/// Move a peer to where its authentic packet came from; false: a peer of another name holds that endpoint.
pub fn follow<T: Transport>(shared: &Shared<T>, peer: &Arc<Peer<T>>, origin: &T::Origin, now: Nanos) -> bool {
    let endpoint = *origin.endpoint();
    // Looked up first, because asking for a route is slow.
    if shared.peers.endpoints.is_held_by_another(&endpoint, peer) {
        return false;
    }
    let Ok(path) = shared.transport.path_from(origin, &peer.path.load(), now) else { return false };
    let Some(previous) = shared.peers.endpoints.float(peer, path) else { return false };
    if previous != endpoint {
        shared.report(Event::PeerFloated { handle: peer.handle, endpoint, previous });
    }
    true
}
