//! The thread that looks at the clock: pings, expiries, ageing, the MTU of paths.
//!
//! Source: docs/protocol/data.md, section 5.1.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::packet::PING;
use bridged_core::{Nanos, SECOND};
use bridged_sys::descriptor::wait_readable;
use bridged_sys::thread::now;

use crate::contract::Event;
use crate::peers::Peer;
use crate::shared::Shared;
use crate::sync::lock;

/// The longest pause.
const TICK: Nanos = SECOND;
/// The shortest.
const LEAST_PAUSE: Nanos = SECOND / 100;
/// Routes are asked for their MTU so often.
const MTU_PAUSE: Nanos = 10 * SECOND;
/// Routes that are asked in one tick at most.
const MTU_PEERS: usize = 64;

/// Tick until the data plane stops.
pub fn run(shared: &Shared) {
    let wakes = shared.wakes.load_full();
    let Some(wake) = wakes.last() else { return };
    let mut swept_at = 0;
    while !shared.is_stopping.load(Relaxed) {
        let now = now();
        let next = look_at_peers(shared, now);
        if now.saturating_sub(swept_at) >= TICK {
            swept_at = now;
            shared.fdb.sweep(now);
            ask_for_mtu(shared, now);
        }
        let pause = next.saturating_sub(now).clamp(LEAST_PAUSE, TICK);
        if wait_readable(&[wake.as_raw_fd()], Some(pause)) != 0 {
            wake.clear();
        }
    }
}

/// Send pings, tell of expiries; when something is due next.
fn look_at_peers(shared: &Shared, now: Nanos) -> Nanos {
    let table = shared.table.load_full();
    let mut next = now + TICK;
    for peer in &table.peers {
        let (ping_at, expires_at) = peer.deadlines();
        if ping_at.is_some_and(|at| now >= at) {
            send_payload(shared, peer, &PING, now);
        }
        if expires_at.is_some_and(|at| now >= at) && !peer.timers.is_expired.swap(true, Relaxed) {
            shared.tell(Event::PeerExpired { handle: peer.handle });
        }
        let (ping_at, expires_at) = peer.deadlines();
        next = [ping_at, expires_at].into_iter().flatten().fold(next, Nanos::min);
    }
    next
}

/// Seal and send what is no frame; nothing happens while no key is in use.
pub fn send_payload(shared: &Shared, peer: &Arc<Peer>, payload: &[u8], now: Nanos) {
    let sockets = shared.sockets.load_full();
    let mut outbox = lock(&shared.sending);
    if outbox.has_room(payload.len()) {
        outbox.place_copy(peer, None, payload);
        outbox.flush(shared, sockets.first().map(Arc::as_ref), now);
    }
}

fn ask_for_mtu(shared: &Shared, now: Nanos) {
    let table = shared.table.load_full();
    let due =
        table.peers.iter().filter(|peer| now.saturating_sub(peer.path.load().asked_at.load(Relaxed)) >= MTU_PAUSE);
    for peer in due.take(MTU_PEERS) {
        if shared.refresh_mtu(&peer.path.load(), now, MTU_PAUSE) {
            let _outbox = lock(&shared.sending);
            shared.cells[shared.common_cell()].path_mtu_changed.add(1);
        }
    }
}
