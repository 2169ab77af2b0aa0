//! The thread that reads the TAP with `priority`: it reads ahead, sends urgent frames at once, and the
//! others in order, a share at a time.
//!
//! Source: IEEE 802.1Q-2022, 8.6.8.1 (strict priority), with two classes.
//! A frame can overtake others only before they reach the kernel. Therefore the thread empties the TAP before each share, and
//! drops the newest frames if there is no room. It sends a share only when the socket is half empty. This keeps the
//! queue of a slow WAN here, where urgent frames can overtake. A lone frame is sent at once, and there are no timers.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bridged_core::priority::is_urgent;
use bridged_core::vnet::VnetHeader;
use bridged_sys::descriptor::{read, wait_writable_or_readable};
use bridged_sys::EINTR;

use crate::contract::Direction::Transmit;
use crate::control::counters::Reason;
use crate::lan_to_wan::forwarding::{Forwarding, FLUSH_OCTETS};
use crate::lan_to_wan::priority_backlog::PriorityBacklog;
use crate::lan_to_wan::reader::{nothing_read, NextStep, ERROR_PAUSE};
use crate::lan_to_wan::scene::{Scene, View};
use crate::policy::from_lan::frame_octets;
use crate::shared::Shared;
use crate::tap::Tap;
use crate::threads::lan_thread;
use crate::transport::seam::{Link, Transport};

/// Most reads before the next share is sent.
const BUDGET_READS: usize = 1024;
/// Most reads in one turn whose frame has to be dropped.
const BUDGET_DROPS: usize = 256;

/// See the module.
pub struct PriorityReader<T: Transport> {
    shared: Arc<Shared<T>>,
    worker: usize,
    forwarding: Forwarding<T>,
    backlog: PriorityBacklog,
    budget: usize,
}

/// The result of a turn.
struct Outcome {
    next: NextStep,
    /// Frames wait for the socket to send.
    waits_for_socket: bool,
}

impl<T: Transport> PriorityReader<T> {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared<T>>, worker: usize, seed: u64) -> PriorityReader<T> {
        PriorityReader {
            shared,
            worker,
            forwarding: Forwarding::new(lan_thread(worker), seed),
            backlog: PriorityBacklog::new(),
            budget: 1,
        }
    }

    /// Move frames until the data plane stops.
    pub fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.threads.wakes();
        let Some(wake) = wakes.get(lan_thread(self.worker)) else { return };
        while !shared.threads.is_stopping() {
            shared.threads.answer(lan_thread(self.worker));
            let outcome = self.turn(&shared);
            if outcome.next == NextStep::Again {
                continue;
            }
            let tap = shared.adapter.tap.load_full();
            let queue = match (outcome.next, tap.as_ref()) {
                (NextStep::Wait, Some(tap)) => shared.adapter.queue_to_read(tap, self.worker),
                _ => None,
            };
            let link = shared.transport.link(self.worker);
            let socket = link.writable().filter(|_| outcome.waits_for_socket);
            let descriptors = [socket.unwrap_or(-1), queue.unwrap_or(-1), wake.as_raw_fd()];
            let timeout = (outcome.next == NextStep::Pause).then_some(ERROR_PAUSE);
            if wait_writable_or_readable(&descriptors, timeout) & 0b100 != 0 {
                wake.clear();
            }
        }
    }

    /// Read what there is, and send a share of it.
    fn turn(&mut self, shared: &Shared<T>) -> Outcome {
        let tap = shared.adapter.tap.load();
        let queue = tap.as_ref().and_then(|tap| Some((tap, shared.adapter.queue_to_read(tap, self.worker)?)));
        let next = match queue {
            Some((tap, queue)) => self.read_ahead(&View::of(shared, self.worker).scene(shared), tap, queue),
            None => NextStep::Wait,
        };
        if self.backlog.is_empty() {
            return Outcome { next, waits_for_socket: false };
        }
        // What was read may be younger than the view that it was read with.
        let view = View::of(shared, self.worker);
        // The other half of the send buffer is for what is urgent.
        if !view.link.has_room() {
            let next = if next == NextStep::Again { NextStep::Wait } else { next };
            return Outcome { next, waits_for_socket: true };
        }
        self.send_share(&view.scene(shared));
        let next = if self.backlog.is_empty() { next } else { NextStep::Again };
        Outcome { next, waits_for_socket: false }
    }

    /// Read up to the budget: send what is urgent, keep the rest.
    fn read_ahead(&mut self, scene: &Scene<'_, T>, tap: &Arc<Tap>, queue: RawFd) -> NextStep {
        let budget = if self.backlog.is_empty() { self.budget } else { BUDGET_READS };
        let (mut reads, mut dropped) = (0, 0);
        let mut next = NextStep::Again;
        while reads < budget && dropped < BUDGET_DROPS {
            let from = self.backlog.room(tap.room);
            match read(queue, self.backlog.at(from, tap.room)) {
                Ok(octets) if octets > 0 => {
                    reads += 1;
                    if !scene.is_current() {
                        self.sort_anew(scene.shared, tap.vnet, from, octets);
                        break;
                    }
                    dropped += usize::from(!self.sort(scene, tap.vnet, from, octets));
                }
                Err(EINTR) => {}
                nothing => {
                    next = nothing_read(scene.shared, tap, queue, nothing.err());
                    break;
                }
            }
        }
        self.forwarding.batcher.flush(&scene.send);
        self.budget = if next == NextStep::Again { (self.budget * 2).min(BUDGET_READS) } else { reads.max(1) };
        next
    }

    /// A peer came or went, perhaps before this frame: sort it with the table of now.
    #[cold]
    fn sort_anew(&mut self, shared: &Shared<T>, header: usize, from: usize, octets: usize) {
        let view = View::of(shared, self.worker);
        let scene = view.scene(shared);
        self.sort(&scene, header, from, octets);
        self.forwarding.batcher.flush(&scene.send);
    }

    /// What was read to a place of the ring: `octets`, of which `header` are the virtio-net header's. False where there
    /// was no room for it.
    fn sort(&mut self, scene: &Scene<'_, T>, header: usize, from: usize, octets: usize) -> bool {
        if let Err(reason) = frame_octets(octets, header) {
            scene.shared.counters.count_drops(Transmit, reason, 1, None);
            return true;
        }
        let (head, frame) = self.backlog.at(from, octets).split_at(header);
        let vnet = match header {
            0 => VnetHeader::default(),
            _ => VnetHeader::parse(head).unwrap_or_default(),
        };
        let dscp = scene.shared.settings.priority.dscp(frame);
        if is_urgent(dscp) {
            forward(&mut self.forwarding, scene, &vnet, dscp << 2, frame);
            return true;
        }
        let is_kept = self.backlog.keep(from, header, octets, vnet, dscp << 2);
        if !is_kept {
            let segment = usize::from(vnet.gso_size).max(1);
            let frames = if vnet.is_super() { (octets - header).div_ceil(segment) } else { 1 };
            scene.shared.counters.count_drops(Transmit, Reason::UdpSendFull, frames as u64, None);
        }
        if self.forwarding.batcher.octets() > 0 {
            // It may be long until the TAP is empty.
            self.forwarding.batcher.flush(&scene.send);
        }
        is_kept
    }

    fn send_share(&mut self, scene: &Scene<'_, T>) {
        while let Some((record, frame)) = self.backlog.oldest() {
            // No more than one super-frame: the rest of the socket's buffer is for what is urgent.
            let waiting = self.forwarding.batcher.octets();
            if waiting > 0 && waiting + frame.len() > FLUSH_OCTETS {
                break;
            }
            forward(&mut self.forwarding, scene, &record.vnet, record.class, frame);
            self.backlog.drop_oldest();
        }
        self.forwarding.batcher.flush(&scene.send);
    }
}

/// Copy a frame from another buffer into the batcher.
fn forward<T: Transport>(
    forwarding: &mut Forwarding<T>,
    scene: &Scene<'_, T>,
    vnet: &VnetHeader,
    class: u8,
    frame: &[u8],
) {
    forwarding.batcher.set_class(class);
    if vnet.is_super() {
        forwarding.forward_super(scene, vnet, frame);
        return;
    }
    if !forwarding.batcher.has_room(frame.len()) {
        forwarding.batcher.flush(&scene.send);
    }
    forwarding.batcher.write_slot(0)[..frame.len()].copy_from_slice(frame);
    forwarding.forward_plain(scene, vnet, frame.len());
}

#[cfg(test)]
mod tests {
    use bridged_core::priority::Priority;

    use super::*;
    use crate::test_rig::{frame, Rig};

    #[test]
    fn an_urgent_frame_goes_to_the_peers_of_when_it_was_sent() {
        let rig = Rig::new(|settings| settings.priority = Priority::Pcp);
        let shared = Arc::clone(rig.shared());
        let mut reader = PriorityReader::new(Arc::clone(&shared), 0, 7);
        let tap = shared.adapter.tap.load_full().unwrap();
        let queue = shared.adapter.queue_to_read(&tap, 0).unwrap();
        let before = View::of(&shared, 0);
        let mut far = rig.join(1, Some(1));
        // A tag of PCP 6.
        let mut urgent = frame(1, 60);
        urgent[12..16].copy_from_slice(&[0x81, 0, 0xc0, 4]);
        rig.put(&urgent);
        reader.budget = 4;
        let next = reader.read_ahead(&before.scene(&shared), &tap, queue);
        assert_eq!((next, reader.backlog.is_empty()), (NextStep::Again, true));
        assert_eq!(far.take(), [urgent]);
    }
}
