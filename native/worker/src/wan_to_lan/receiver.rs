//! The thread that receives from the peers: read, open, forward, once for all that waits.
//!
//! Source: docs/protocol/data.md#2-5.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::moderation::Moderation;
use bridged_core::packet::{is_data, PacketRun, HEADER_V2};
use bridged_sys::descriptor::wait_readable;
use bridged_sys::thread::{now, rest, wait_exactly};
use bridged_sys::EAGAIN;

use crate::contract::Direction::Receive;
use crate::control::counters::Reason;
use crate::control::names::BatchName;
use crate::shared::Shared;
use crate::tables::keys::SPARE_OCTETS;
use crate::tables::peers::Peer;
use crate::threads::wan_thread;
use crate::transport::seam::{BatchReceiver, Link, Transport};
use crate::wan_to_lan::deliver::Delivery;
use crate::wan_to_lan::joiner::{unframe, Joiner};
use crate::wan_to_lan::opener::{find, open};
use crate::wan_to_lan::scene::{Batch, WanScene};
use crate::wan_to_lan::strangers::read_control;
use crate::wan_to_lan::tap_writer::Frame;

/// See the module.
pub struct WanReceiver<T: Transport> {
    shared: Arc<Shared<T>>,
    worker: usize,
    receiver: T::Receiver,
    moderation: Moderation,
    /// What was read last calls for a rest once nothing more waits.
    rests: bool,
    /// Opened frames of one batch.
    opened: Vec<Frame>,
    joiner: Joiner,
    delivery: Delivery<T>,
}

impl<T: Transport> WanReceiver<T> {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared<T>>, worker: usize, seed: u64) -> WanReceiver<T> {
        WanReceiver {
            shared,
            worker,
            receiver: T::Receiver::new(worker),
            moderation: Moderation::default(),
            rests: false,
            opened: Vec::with_capacity(4096),
            joiner: Joiner::default(),
            delivery: Delivery::new(worker, seed),
        }
    }

    /// Move frames until the data plane stops.
    pub fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.threads.wakes();
        let Some(wake) = wakes.get(wan_thread(self.worker)) else { return };
        let pause = u64::from(shared.settings.moderation) * 1000;
        if pause > 0 {
            wait_exactly();
        }
        while !shared.threads.is_stopping() {
            shared.threads.answer(wan_thread(self.worker));
            if self.turn(&shared) {
                continue;
            }
            if std::mem::take(&mut self.rests) && pause > 0 {
                rest(pause);
                continue;
            }
            let link = shared.transport.link(self.worker);
            let is_held = shared.is_wan_held.load(Relaxed);
            let [socket, streams] = link.readable().map(|found| found.filter(|_| !is_held).unwrap_or(-1));
            if wait_readable(&[socket, wake.as_raw_fd(), streams], None) & 0b10 != 0 {
                wake.clear();
            }
        }
    }

    /// Read once and forward; false where it is time to wait.
    fn turn(&mut self, shared: &Shared<T>) -> bool {
        let link = shared.transport.link(self.worker);
        for (peer, key_id) in shared.released.take(self.worker) {
            let table = shared.peers.table.load();
            self.open_early(&WanScene { shared, table: &table, link: &link, now: now() }, &peer, key_id);
        }
        if shared.is_wan_held.load(Relaxed) {
            return false;
        }
        let count = match self.receiver.receive(&link, &shared.transport, &shared.events) {
            Ok(count) => count,
            // An ICMP error of an earlier packet: it concerns nobody here.
            Err(number) => return number != EAGAIN,
        };
        let now = now();
        self.rests = false;
        for index in 0..count {
            let Some(arrival) = self.receiver.arrival(index, &shared.transport) else { continue };
            self.rests |= self.moderation.observe(arrival.segment, now);
            let run = PacketRun { length: arrival.length, size: arrival.segment.max(1), gap: arrival.gap };
            let packets = run.packets().max(1);
            shared.counters.threads[wan_thread(self.worker)].sizes(BatchName::DatagramsPerReceive).observe(packets, 1);
            let table = shared.peers.table.load();
            let scene = WanScene { shared, table: &table, link: &link, now };
            self.read_arrival(&scene, arrival.origin, arrival.start, run);
        }
        self.delivery.finish(shared, &link, self.receiver.octets(), now);
        self.receiver.send_replies(&link, &shared.counters);
        self.receiver.expects_more()
    }

    /// Split an arrival where the header changes.
    fn read_arrival(&mut self, scene: &WanScene<'_, T>, origin: T::Origin, mut start: usize, run: PacketRun) {
        if run.length == 0 {
            scene.shared.counters.count_drops(Receive, Reason::ShortPacket, 1, None);
            return;
        }
        if scene.shared.settings.static_key {
            return self.read_batch(scene, &Batch { origin, start, run });
        }
        let PacketRun { length, size, gap } = run;
        let arrived_end = start + length;
        while start < arrived_end {
            let octets = self.receiver.octets();
            let first = &octets[start..arrived_end.min(start + size)];
            let header = &first[..first.len().min(HEADER_V2)];
            let mut end = start + first.len();
            while end + gap < arrived_end {
                let next = &octets[end + gap..arrived_end.min(end + gap + size)];
                if !next.starts_with(header) {
                    break;
                }
                end += gap + next.len();
            }
            let run = PacketRun { length: end - start, size, gap };
            self.read_batch(scene, &Batch { origin, start, run });
            start = end + gap;
        }
    }

    fn read_batch(&mut self, scene: &WanScene<'_, T>, batch: &Batch<T::Origin>) {
        let is_data = if scene.shared.settings.static_key {
            !scene.table.peers.is_empty()
        } else {
            is_data(&self.receiver.octets()[batch.all()])
        };
        if !is_data {
            return read_control(scene, &mut self.receiver, batch);
        }
        let Some((peer, key)) = find(scene, &mut self.receiver, batch, self.worker) else { return };
        let Some(slot) = key.as_ref() else { return };
        if peer.early.has(slot.key_id) {
            self.open_early(scene, &peer, slot.key_id);
        }
        if !open(scene, &mut self.receiver, batch, &peer, slot, wan_thread(self.worker), &mut self.opened) {
            return;
        }
        let shared = scene.shared;
        if peer.reassembly.is_some() {
            let octets = self.receiver.octets();
            if self.joiner.join(shared, &peer, octets, &mut self.opened, scene.now) {
                // What waits lies in the receiver's bytes, and comes first.
                self.delivery.finish(shared, scene.link, octets, scene.now);
                let octets = &mut self.joiner.octets[..];
                unframe(shared, &peer, octets, &mut self.opened);
                self.delivery.deliver(scene, &peer, octets, &self.opened);
                self.delivery.finish(shared, scene.link, octets, scene.now);
                return;
            }
        }
        if peer.is_framed() {
            unframe(shared, &peer, self.receiver.octets(), &mut self.opened);
        }
        self.delivery.deliver(scene, &peer, self.receiver.octets(), &self.opened);
    }

    /// Open packets that waited for this key, as if they came now.
    #[cold]
    fn open_early(&mut self, scene: &WanScene<'_, T>, peer: &Peer<T>, key_id: u8) {
        for early in peer.early.take(key_id) {
            // What was delivered before still lies where these are opened, and perhaps packets that follow.
            self.delivery.finish(scene.shared, scene.link, self.receiver.octets(), scene.now);
            let (octets, length) = (self.receiver.octets(), early.octets.len());
            if early.is_stale(scene.now) || length + SPARE_OCTETS > octets.len() {
                scene.shared.count_early(peer, early.packets());
                continue;
            }
            let place = ..length + SPARE_OCTETS;
            let replaced = octets[place].to_vec();
            octets[..length].copy_from_slice(&early.octets);
            self.read_batch(scene, &Batch { origin: early.origin, start: 0, run: early.run });
            self.delivery.finish(scene.shared, scene.link, self.receiver.octets(), scene.now);
            self.receiver.octets()[place].copy_from_slice(&replaced);
        }
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "receiver_stream_tests.rs"]
mod stream_tests;
