//! What the control plane and the timers send: control packets unchanged, and sealed payloads that are no frames.

use std::sync::Arc;

use bridged_core::Nanos;

use crate::contract::{Direction::Transmit, Endpoint};
use crate::control::counters::Count;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::shared::Shared;
use crate::sync::{lock, Mutex};
use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

/// See the module. Threads send one at a time.
pub struct ControlSender<T: Transport> {
    batcher: Mutex<PeerBatcher<T>>,
}

impl<T: Transport> ControlSender<T> {
    /// One that counts in the cells of `thread`.
    pub fn new(thread: usize) -> ControlSender<T> {
        ControlSender { batcher: Mutex::new(PeerBatcher::new(thread)) }
    }

    /// Send a control packet; what cannot be sent is counted.
    pub fn send_control(&self, shared: &Shared<T>, packet: &[u8], endpoint: Endpoint, now: Nanos) {
        let link = shared.transport.link(0);
        let sent = lock(&self.batcher).send_control(packet, endpoint, &shared.send_context(&link, now));
        if let Err(reason) = sent {
            shared.counters.count_drops(Transmit, reason, 1, None);
        }
    }

    /// Seal and send what is no frame; nothing happens while no key is in use.
    pub fn send_payload(&self, shared: &Shared<T>, peer: &Arc<Peer<T>>, payload: &[u8], now: Nanos) {
        let link = shared.transport.link(0);
        let mut batcher = lock(&self.batcher);
        if batcher.has_room(payload.len()) {
            batcher.place_copy(peer, None, payload);
            batcher.flush(&shared.send_context(&link, now));
        }
    }

    /// Send by hand, as the only writer of what the thread counts.
    pub fn with_batcher<R>(&self, send: impl FnOnce(&mut PeerBatcher<T>) -> R) -> R {
        send(&mut lock(&self.batcher))
    }

    /// Count a path whose MTU changed. Its counter has one writer: the holder of this lock.
    pub fn count_mtu_change(&self, shared: &Shared<T>) {
        let _batcher = lock(&self.batcher);
        shared.counters.threads[shared.threads.timer()].count(Count::PathMtuChanged, 1);
    }
}
