//! The thread that reads the TAP where urgent frames go first (`priority`): it reads ahead, sends what is urgent at once, and the
//! rest in its order, a share at a time.
//!
//! Source: IEEE 802.1Q-2022, 8.6.8.1 (strict priority), with two classes.
//! Frames can overtake only where they wait on this side of the kernel. So the TAP is emptied before each share, also where what is
//! read has to be dropped (the last ones are), and no share is given to a socket that has not yet sent half of what it may hold:
//! a slow WAN's queue is here, and not in the kernel.
//! A lone frame goes out at once: nothing waits for more to come, and there are no timers.

use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::packet::LEAST_FRAME_OCTETS;
use bridged_core::priority::is_urgent;
use bridged_core::vnet::VnetHeader;
use bridged_sys::descriptor::{read, wait_writable, wait_writable_or_readable};
use bridged_sys::thread::now;
use bridged_sys::{EAGAIN, EBADFD, EINTR, ENODEV};

use crate::contract::Direction::Transmit;
use crate::control::counters::Reason;
use crate::lan_to_wan::forwarding::{Forwarding, Scene, FLUSH_OCTETS};
use crate::lan_to_wan::priority::PriorityBacklog;
use crate::lan_to_wan::reader::{NextStep, ERROR_PAUSE};
use crate::shared::Shared;
use crate::tap::{judge, Failure, Tap};

/// Reads before the next share is sent.
const BUDGET_READS: usize = 1024;
/// Of these, so many may be in vain.
const BUDGET_DROPS: usize = 256;

/// See the module.
pub struct PriorityReader {
    shared: Arc<Shared>,
    worker: usize,
    thread: usize,
    forwarding: Forwarding,
    backlog: PriorityBacklog,
    budget: usize,
}

/// What a turn came to.
struct Outcome {
    turn: NextStep,
    /// Frames wait for the socket to send.
    waits_for_socket: bool,
}

impl PriorityReader {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared>, worker: usize, seed: u64) -> PriorityReader {
        let thread = 2 * worker;
        PriorityReader {
            shared,
            worker,
            thread,
            forwarding: Forwarding::new(thread, seed),
            backlog: PriorityBacklog::new(),
            budget: 1,
        }
    }

    /// Move frames until the data plane stops.
    pub fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.wakes.load_full();
        let Some(wake) = wakes.get(self.thread) else { return };
        while !shared.is_stopping.load(Relaxed) {
            let outcome = self.turn(&shared);
            if outcome.turn == NextStep::Again {
                continue;
            }
            let tap = shared.tap.load_full();
            let queue = match (outcome.turn, tap.as_ref()) {
                (NextStep::Wait, Some(tap)) => tap.queue_to_read(self.worker),
                _ => None,
            };
            let sockets = shared.sockets.load_full();
            let socket = sockets.get(self.worker).or(sockets.first()).filter(|_| outcome.waits_for_socket);
            let descriptors = [socket.map_or(-1, |socket| socket.as_raw_fd()), queue.unwrap_or(-1), wake.as_raw_fd()];
            let timeout = (outcome.turn == NextStep::Pause).then_some(ERROR_PAUSE);
            if wait_writable_or_readable(&descriptors, timeout) & 0b100 != 0 {
                wake.clear();
            }
        }
    }

    /// Read what there is, and send a share of it.
    fn turn(&mut self, shared: &Shared) -> Outcome {
        let tap = shared.tap.load();
        let table = shared.table.load();
        let sockets = shared.sockets.load();
        let socket = sockets.get(self.worker).or(sockets.first()).map(Arc::as_ref);
        let scene = Scene { shared, table: &table, socket, now: now() };
        let queue = tap.as_ref().and_then(|tap| Some((tap, tap.queue_to_read(self.worker)?)));
        let turn = match queue {
            Some((tap, queue)) => self.read_ahead(&scene, tap, queue),
            None => NextStep::Wait,
        };
        if self.backlog.is_empty() {
            return Outcome { turn, waits_for_socket: false };
        }
        // It is writable while less than half of its buffer is in use; the other half is for what is urgent.
        if socket.is_some_and(|socket| !wait_writable(socket.as_fd(), 0)) {
            let turn = if turn == NextStep::Again { NextStep::Wait } else { turn };
            return Outcome { turn, waits_for_socket: true };
        }
        self.send_share(&scene);
        Outcome { turn: if self.backlog.is_empty() { turn } else { NextStep::Again }, waits_for_socket: false }
    }

    /// Read up to the budget: send what is urgent, keep the rest.
    fn read_ahead(&mut self, scene: &Scene<'_>, tap: &Arc<Tap>, queue: RawFd) -> NextStep {
        let budget = if self.backlog.is_empty() { self.budget } else { BUDGET_READS };
        let (mut reads, mut dropped) = (0, 0);
        let mut turn = NextStep::Again;
        while reads < budget && dropped < BUDGET_DROPS {
            let from = self.backlog.room(tap.room);
            match read(queue, self.backlog.at(from, tap.room)) {
                Ok(0) => {
                    // End of file: what is behind the descriptor was closed.
                    scene.shared.detach_lost_tap(tap, ENODEV);
                    turn = NextStep::Wait;
                    break;
                }
                Ok(octets) => {
                    reads += 1;
                    dropped += usize::from(!self.sort(scene, tap.vnet, from, octets));
                }
                Err(EAGAIN) => {
                    turn = NextStep::Wait;
                    break;
                }
                Err(EINTR) => {}
                Err(number) => {
                    turn = NextStep::Pause;
                    if judge(queue, number) == Failure::Gone {
                        scene.shared.detach_lost_tap(tap, if number == 0 { EBADFD } else { number });
                        turn = NextStep::Wait;
                    }
                    break;
                }
            }
        }
        self.forwarding.batcher.flush(scene.shared, scene.socket, scene.now);
        self.budget = if turn == NextStep::Again { (self.budget * 2).min(BUDGET_READS) } else { reads.max(1) };
        turn
    }

    /// What was read to a place of the ring: `octets`, of which `header` are the virtio-net header's. False where there was no
    /// room for it.
    fn sort(&mut self, scene: &Scene<'_>, header: usize, from: usize, octets: usize) -> bool {
        if octets < header + LEAST_FRAME_OCTETS {
            scene.shared.count_drops(Transmit, Reason::ShortFrame, 1, None);
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
            scene.shared.count_drops(Transmit, Reason::UdpSendFull, frames as u64, None);
        }
        if self.forwarding.batcher.octets() > 0 {
            // It may be long until the TAP is empty.
            self.forwarding.batcher.flush(scene.shared, scene.socket, scene.now);
        }
        is_kept
    }

    fn send_share(&mut self, scene: &Scene<'_>) {
        while let Some((record, frame)) = self.backlog.oldest() {
            // No more than one super-frame: the rest of the socket's buffer is for what is urgent.
            let waiting = self.forwarding.batcher.octets();
            if waiting > 0 && waiting + frame.len() > FLUSH_OCTETS {
                break;
            }
            forward(&mut self.forwarding, scene, &record.vnet, record.class, frame);
            self.backlog.drop_oldest();
        }
        self.forwarding.batcher.flush(scene.shared, scene.socket, scene.now);
    }
}

/// Put a frame that lies elsewhere into the batcher.
fn forward(forwarding: &mut Forwarding, scene: &Scene<'_>, vnet: &VnetHeader, class: u8, frame: &[u8]) {
    forwarding.batcher.set_class(class);
    if vnet.is_super() {
        forwarding.forward_super(scene, vnet, frame);
        return;
    }
    if !forwarding.batcher.has_room(frame.len()) {
        forwarding.batcher.flush(scene.shared, scene.socket, scene.now);
    }
    forwarding.batcher.write_slot(0)[..frame.len()].copy_from_slice(frame);
    forwarding.forward_plain(scene, vnet, frame.len());
}
