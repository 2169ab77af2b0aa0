//! The thread that reads the TAP: switch, cut, seal, send.
//!
//! Source: docs/protocol/data.md; Linux Documentation/networking/tuntap.rst.
//! A lone frame is sent before the next read. A burst is read up to a budget, which doubles while the burst lasts.

use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;

use bridged_core::vnet::VnetHeader;
use bridged_core::Nanos;
use bridged_sys::descriptor::{read, wait_readable};
use bridged_sys::memory::resident;
use bridged_sys::{Errno, EAGAIN, EBADFD, EINTR, ENODEV};

use crate::contract::Direction::Transmit;
use crate::lan_to_wan::forwarding::{Forwarding, FLUSH_OCTETS};
use crate::lan_to_wan::scene::{Scene, View};
use crate::policy::from_lan::frame_octets;
use crate::shared::Shared;
use crate::tap::{judge, Failure, Tap, SUPER_FRAME_OCTETS};
use crate::threads::lan_thread;
use crate::transport::seam::Transport;

/// Most reads in one turn.
const BUDGET_READS: usize = 64;
/// Wait this long after an error that the adapter does not explain.
pub const ERROR_PAUSE: Nanos = 1_000_000;

/// What to do after a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NextStep {
    /// There may be more.
    Again,
    /// Nothing is left for now.
    Wait,
    /// Something is wrong with the adapter that it does not say.
    Pause,
}

/// See the module.
pub struct LanReader<T: Transport> {
    shared: Arc<Shared<T>>,
    worker: usize,
    forwarding: Forwarding<T>,
    super_frame: Box<[u8]>,
    /// The frame read last was a super-frame: expect another one.
    expects_super: bool,
    budget: usize,
}

impl<T: Transport> LanReader<T> {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared<T>>, worker: usize, seed: u64) -> LanReader<T> {
        LanReader {
            shared,
            worker,
            forwarding: Forwarding::new(lan_thread(worker), seed),
            super_frame: resident(SUPER_FRAME_OCTETS + 64),
            expects_super: false,
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
            let next = self.turn(&shared);
            if next == NextStep::Again {
                continue;
            }
            let queue = match (next, shared.adapter.tap.load().as_ref()) {
                (NextStep::Wait, Some(tap)) => shared.adapter.queue_to_read(tap, self.worker).unwrap_or(-1),
                _ => -1,
            };
            let timeout = (next == NextStep::Pause).then_some(ERROR_PAUSE);
            if wait_readable(&[queue, wake.as_raw_fd()], timeout) & 0b10 != 0 {
                wake.clear();
            }
        }
    }

    /// Read up to the budget, and send.
    pub fn turn(&mut self, shared: &Shared<T>) -> NextStep {
        let tap = shared.adapter.tap.load();
        let view = View::of(shared, self.worker);
        let scene = view.scene(shared);
        let queue = tap.as_ref().and_then(|tap| Some((tap, shared.adapter.queue_to_read(tap, self.worker)?)));
        let Some((tap, queue)) = queue else {
            self.forwarding.batcher.flush(&scene.send);
            return NextStep::Wait;
        };
        let (next, reads) = self.read(&scene, tap, queue);
        // Send a lone frame before looking for the next one.
        if next == NextStep::Again && (self.expects_super || self.budget > 1) {
            self.forwarding.batcher.flush_full(&scene.send);
        } else {
            self.forwarding.batcher.flush(&scene.send);
        }
        self.budget = if next == NextStep::Again { (self.budget * 2).min(BUDGET_READS) } else { reads.max(1) };
        next
    }

    /// Read up to the budget; how many reads returned a frame.
    #[inline]
    fn read(&mut self, scene: &Scene<'_, T>, tap: &Arc<Tap>, queue: RawFd) -> (NextStep, usize) {
        let mut reads = 0;
        while reads < self.budget {
            let batcher = &mut self.forwarding.batcher;
            if !batcher.has_room(tap.room) {
                batcher.flush(&scene.send);
            }
            let into_super = self.expects_super;
            let room = if into_super { &mut self.super_frame[..] } else { batcher.write_slot(tap.vnet) };
            let room_octets = tap.room.min(room.len());
            match read(queue, &mut room[..room_octets]) {
                Ok(octets) if octets > 0 => {
                    reads += 1;
                    if !scene.is_current() {
                        self.forward_anew(scene.shared, tap, into_super, octets);
                        break;
                    }
                    self.forward(scene, tap, into_super, octets);
                    if self.forwarding.batcher.octets() >= FLUSH_OCTETS {
                        self.forwarding.batcher.flush_full(&scene.send);
                    }
                }
                Err(EINTR) => {}
                nothing => return (nothing_read(scene.shared, tap, queue, nothing.err()), reads),
            }
        }
        (NextStep::Again, reads)
    }

    /// A peer came or went, perhaps before this frame: forward it by the table of now.
    #[cold]
    fn forward_anew(&mut self, shared: &Shared<T>, tap: &Tap, in_super: bool, octets: usize) {
        let view = View::of(shared, self.worker);
        let scene = view.scene(shared);
        self.forward(&scene, tap, in_super, octets);
        self.forwarding.batcher.flush(&scene.send);
    }

    /// One read: `octets` at the start of the super-frame buffer, or of the batcher's write slot.
    fn forward(&mut self, scene: &Scene<'_, T>, tap: &Tap, in_super: bool, octets: usize) {
        let vnet_octets = tap.vnet;
        let batcher = &mut self.forwarding.batcher;
        let packet = if in_super { &self.super_frame[..] } else { batcher.write_slot(vnet_octets) };
        let length = match frame_octets(octets, vnet_octets) {
            Ok(length) => length,
            Err(reason) => return scene.shared.counters.count_drops(Transmit, reason, 1, None),
        };
        let vnet = match vnet_octets {
            0 => VnetHeader::default(),
            _ => VnetHeader::parse(packet).unwrap_or_default(),
        };
        self.expects_super = vnet.is_super();
        let frame = vnet_octets..octets;
        if vnet.is_super() {
            if !in_super {
                self.super_frame[frame.clone()].copy_from_slice(&batcher.write_slot(0)[..length]);
            }
            self.forwarding.forward_super(scene, &vnet, &self.super_frame[frame]);
            return;
        }
        if in_super {
            batcher.write_slot(0)[..length].copy_from_slice(&self.super_frame[frame]);
        }
        self.forwarding.forward_plain(scene, &vnet, length);
    }
}

/// What to do after a read that returned no frame; `number`: the errno, None: end of file.
#[cold]
pub fn nothing_read<T: Transport>(shared: &Shared<T>, tap: &Arc<Tap>, queue: RawFd, number: Option<Errno>) -> NextStep {
    match number {
        // What is behind the descriptor was closed.
        None => {
            shared.detach_lost_tap(tap, ENODEV);
            NextStep::Wait
        }
        Some(EAGAIN) => NextStep::Wait,
        Some(number) if judge(queue, number) == Failure::Gone => {
            shared.detach_lost_tap(tap, if number == 0 { EBADFD } else { number });
            NextStep::Wait
        }
        Some(_) => NextStep::Pause,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_rig::{frame, Rig};

    /// The peers that had come and gone when the LAN sent a frame decide, not those of when the turn began.
    #[test]
    fn a_frame_goes_to_the_peers_of_when_it_was_sent() {
        let rig = Rig::new(|_| {});
        let shared = Arc::clone(rig.shared());
        let mut reader = LanReader::new(Arc::clone(&shared), 0, 7);
        reader.budget = 4;
        let tap = shared.adapter.tap.load_full().unwrap();
        let queue = shared.adapter.queue_to_read(&tap, 0).unwrap();
        let before = View::of(&shared, 0);
        let mut far = rig.join(1, Some(1));
        rig.put(&frame(1, 60));
        rig.put(&frame(2, 60));
        let next = reader.read(&before.scene(&shared), &tap, queue);
        assert_eq!(next, (NextStep::Again, 1), "the next turn is read with the table of now");
        assert_eq!(far.take(), [frame(1, 60)]);
        assert_eq!(reader.turn(&shared), NextStep::Wait);
        assert_eq!(far.take(), [frame(2, 60)]);
        let before = View::of(&shared, 0);
        rig.plane.remove_peer(1).unwrap();
        rig.put(&frame(3, 60));
        let next = reader.read(&before.scene(&shared), &tap, queue);
        assert_eq!(next, (NextStep::Again, 1));
        assert_eq!((rig.lost("no_peer"), rig.lost("no_key")), (1, 0));
    }
}
