//! The thread that reads the TAP: switch, cut, seal, send.
//!
//! Source: docs/protocol/data.md; Linux Documentation/networking/tuntap.rst.
//! A lone frame goes out before the next read is tried; a burst is read as far as its budget goes, which doubles while it lasts.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::packet::{LEAST_FRAME_OCTETS, OVERHEAD_V2};
use bridged_core::vnet::VnetHeader;
use bridged_core::Nanos;
use bridged_sys::descriptor::{read, wait_readable};
use bridged_sys::memory::resident;
use bridged_sys::thread::now;
use bridged_sys::{EAGAIN, EBADFD, EINTR, ENODEV};

use crate::contract::Direction::Transmit;
use crate::control::counters::Reason;
use crate::lan_to_wan::forwarding::{Forwarding, Scene, FLUSH_OCTETS};
use crate::shared::Shared;
use crate::tap::{judge, Failure, Tap, SUPER_FRAME_OCTETS};

/// Reads in one turn at most.
const BUDGET_READS: usize = 64;
/// After an error that the adapter does not explain.
pub const ERROR_PAUSE: Nanos = 1_000_000;

/// What a turn came to.
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
pub struct LanReader {
    shared: Arc<Shared>,
    worker: usize,
    thread: usize,
    forwarding: Forwarding,
    super_frame: Box<[u8]>,
    /// The frame read last was a super-frame: expect another one.
    expects_super: bool,
    budget: usize,
}

impl LanReader {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared>, worker: usize, seed: u64) -> LanReader {
        let thread = 2 * worker;
        LanReader {
            shared,
            worker,
            thread,
            forwarding: Forwarding::new(thread, seed),
            super_frame: resident(SUPER_FRAME_OCTETS + 64),
            expects_super: false,
            budget: 1,
        }
    }

    /// Move frames until the data plane stops.
    pub fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.wakes.load_full();
        let Some(wake) = wakes.get(self.thread) else { return };
        while !shared.is_stopping.load(Relaxed) {
            let turn = self.turn(&shared);
            if turn == NextStep::Again {
                continue;
            }
            let queue = match (turn, shared.tap.load().as_ref()) {
                (NextStep::Wait, Some(tap)) => tap.queue_to_read(self.worker).unwrap_or(-1),
                _ => -1,
            };
            let timeout = (turn == NextStep::Pause).then_some(ERROR_PAUSE);
            if wait_readable(&[queue, wake.as_raw_fd()], timeout) & 0b10 != 0 {
                wake.clear();
            }
        }
    }

    /// Read up to the budget, and send.
    fn turn(&mut self, shared: &Shared) -> NextStep {
        let tap = shared.tap.load();
        let table = shared.table.load();
        let sockets = shared.sockets.load();
        let socket = sockets.get(self.worker).or(sockets.first()).map(Arc::as_ref);
        let now = now();
        let scene = Scene { shared, table: &table, socket, now };
        let queue = tap.as_ref().and_then(|tap| Some((tap, tap.queue_to_read(self.worker)?)));
        let Some((tap, queue)) = queue else {
            self.forwarding.batcher.flush(shared, socket, now);
            return NextStep::Wait;
        };
        let mut reads = 0;
        let mut turn = NextStep::Again;
        while reads < self.budget {
            if !self.forwarding.batcher.has_room(tap.room) {
                self.forwarding.batcher.flush(shared, socket, now);
            }
            let into_super = self.expects_super;
            let room =
                if into_super { &mut self.super_frame[..] } else { self.forwarding.batcher.write_slot(tap.vnet) };
            let room_octets = tap.room.min(room.len());
            match read(queue, &mut room[..room_octets]) {
                Ok(0) => {
                    // End of file: what is behind the descriptor was closed.
                    shared.detach_lost_tap(tap, ENODEV);
                    turn = NextStep::Wait;
                    break;
                }
                Ok(octets) => {
                    reads += 1;
                    self.forward(&scene, tap, into_super, octets);
                    if self.forwarding.batcher.octets() >= FLUSH_OCTETS {
                        self.forwarding.batcher.flush_full(shared, socket, now);
                    }
                }
                Err(EAGAIN) => {
                    turn = NextStep::Wait;
                    break;
                }
                Err(EINTR) => {}
                Err(number) => {
                    turn = NextStep::Pause;
                    if judge(queue, number) == Failure::Gone {
                        shared.detach_lost_tap(tap, if number == 0 { EBADFD } else { number });
                        turn = NextStep::Wait;
                    }
                    break;
                }
            }
        }
        // A lone frame goes out before the next one is looked for.
        if turn == NextStep::Again && (self.expects_super || self.budget > 1) {
            self.forwarding.batcher.flush_full(shared, socket, now);
        } else {
            self.forwarding.batcher.flush(shared, socket, now);
        }
        self.budget = if turn == NextStep::Again { (self.budget * 2).min(BUDGET_READS) } else { reads.max(1) };
        turn
    }

    /// One read: `octets` at the start of the super-frame buffer, or of the batcher's write slot.
    fn forward(&mut self, scene: &Scene<'_>, tap: &Tap, in_super: bool, octets: usize) {
        let vnet_octets = tap.vnet;
        let batcher = &mut self.forwarding.batcher;
        let packet = if in_super { &self.super_frame[..] } else { batcher.write_slot(vnet_octets) };
        if octets < vnet_octets + LEAST_FRAME_OCTETS {
            scene.shared.count_drops(Transmit, Reason::ShortFrame, 1, None);
            return;
        }
        let vnet = match vnet_octets {
            0 => VnetHeader::default(),
            _ => VnetHeader::parse(packet).unwrap_or_default(),
        };
        let length = octets - vnet_octets;
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

const _: () = assert!(OVERHEAD_V2 >= bridged_core::vnet::LONG_OCTETS);
