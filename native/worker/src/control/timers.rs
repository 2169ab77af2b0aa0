//! The timer thread: pings, expiries, ageing, the MTU of paths.
//!
//! Source: docs/protocol/data.md#5-1.
//! A wake-up looks only at the peers that are due and at those that changed.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;

use bridged_core::packet::PING;
use bridged_core::{Nanos, SECOND};
use bridged_sys::descriptor::wait_readable;
use bridged_sys::thread::now;

use crate::contract::{Event, PeerHandle};
use crate::control::control_sender::ControlSender;
use crate::control::schedule::Schedule;
use crate::shared::Shared;
use crate::sync::lock;
use crate::tables::peer_table::Table;
use crate::transport::seam::{PeerPath, Transport};

/// The longest pause.
const TICK: Nanos = SECOND;
/// The shortest.
const LEAST_PAUSE: Nanos = SECOND / 100;
/// Most routes that are asked in one tick.
const MTU_PEERS: usize = 64;

/// Tick until the data plane stops.
pub fn run<T: Transport>(shared: &Shared<T>, sender: &ControlSender<T>) {
    let wakes = shared.threads.wakes();
    let Some(wake) = wakes.last() else { return };
    let mut swept_at = 0;
    let mut asked = 0;
    let mut schedule = Schedule::default();
    while !shared.threads.is_stopping() {
        shared.threads.answer(shared.threads.timer());
        let now = now();
        look_at_peers(shared, sender, &mut schedule, now);
        if now.saturating_sub(swept_at) >= TICK {
            swept_at = now;
            shared.stations.sweep(now);
            shared.transport.tend(now);
            asked = ask_for_mtu(shared, sender, asked, now);
        }
        let next = schedule.next().unwrap_or(Nanos::MAX);
        let pause = next.saturating_sub(now).clamp(LEAST_PAUSE, TICK);
        if wait_readable(&[wake.as_raw_fd()], Some(pause)) != 0 {
            wake.clear();
        }
    }
}

/// Look at the peers that changed, and at those that are due.
fn look_at_peers<T: Transport>(shared: &Shared<T>, sender: &ControlSender<T>, schedule: &mut Schedule, now: Nanos) {
    let changed = std::mem::take(&mut *lock(&shared.peers.changed_timers));
    let table = shared.peers.table.load_full();
    for peer in changed {
        schedule.set(peer.handle, look_at(shared, sender, &table, peer.handle, now));
    }
    while let Some(handle) = schedule.take_due(now) {
        schedule.set(handle, look_at(shared, sender, &table, handle, now));
    }
}

/// Send a ping or report an expiry; returns when to look again, later than `now`. None: the peer has no timers, or was
/// removed.
fn look_at<T: Transport>(
    shared: &Shared<T>,
    sender: &ControlSender<T>,
    table: &Table<T>,
    handle: PeerHandle,
    now: Nanos,
) -> Option<Nanos> {
    let peer = table.get(handle).ok()?;
    let (ping_at, expires_at) = peer.deadlines();
    let pings = ping_at.is_some_and(|at| now >= at);
    if pings {
        sender.send_payload(shared, peer, &PING, now);
    }
    if expires_at.is_some_and(|at| now >= at) && !peer.timers.is_expired.swap(true, Relaxed) {
        shared.report(Event::PeerExpired { handle });
    }
    let (ping_at, expires_at) = peer.deadlines();
    // A ping that could not be sent is tried again then; an expired peer may be heard again.
    let ping_at = if pings { ping_at.map(|at| at.max(now + TICK)) } else { ping_at };
    let back_at = peer.timers.is_expired.load(Relaxed).then(|| now + TICK);
    let next = [ping_at, expires_at, back_at].into_iter().flatten().min()?;
    Some(next.max(now + LEAST_PAUSE))
}

/// Ask the routes that are due, starting at a place in the table; returns where to start next time, so that all get
/// asked.
fn ask_for_mtu<T: Transport>(shared: &Shared<T>, sender: &ControlSender<T>, from: usize, now: Nanos) -> usize {
    let table = shared.peers.table.load_full();
    let (first, rest) = table.peers.split_at(from.min(table.peers.len()));
    let mut asked = 0;
    for (steps, peer) in rest.iter().chain(first).enumerate() {
        let path = peer.path.load();
        if !path.mtu_is_due(now) {
            continue;
        }
        if asked == MTU_PEERS {
            return (first.len() + steps) % table.peers.len();
        }
        asked += 1;
        if shared.transport.refresh_mtu(&path, now) {
            sender.count_mtu_change(shared);
        }
    }
    0
}
