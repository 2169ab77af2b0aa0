//! The thread that reads the TAP: switch, cut, seal, send.
//!
//! Source: docs/protocol/data.md; Linux Documentation/networking/tuntap.rst.
//! A lone frame goes out before the next read is tried; a burst is read as far as its budget goes, which doubles while it lasts.

use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::mss::clamp_mss;
use bridged_core::packet::{LEAST_FRAME_OCTETS, OVERHEAD_V2};
use bridged_core::segment::{complete_checksum, SuperFrame};
use bridged_core::stats::FrameKind;
use bridged_core::vnet::VnetHeader;
use bridged_core::Nanos;
use bridged_sys::descriptor::{read, wait_readable};
use bridged_sys::thread::now;
use bridged_sys::udp::UdpSocket;
use bridged_sys::{EAGAIN, EBADFD, EINTR, ENODEV};

use crate::contract::Direction::Transmit;
use crate::counters::Reason;
use crate::outbox::Outbox;
use crate::peers::{Peer, Table};
use crate::shared::Shared;
use crate::switch::{Switch, Target};
use crate::tap::{judge, Failure, Tap, SUPER_FRAME_OCTETS};

/// Reads in one turn at most.
const BUDGET_READS: usize = 64;
/// So many octets that wait are sent at once.
const FLUSH_OCTETS: usize = 64_000;
const ERROR_PAUSE: Nanos = 1_000_000;

/// What a turn came to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// There may be more.
    Again,
    /// Nothing is left for now.
    Wait,
    /// Something is wrong with the adapter that it does not say.
    Pause,
}

/// See the module.
pub struct Outward {
    shared: Arc<Shared>,
    worker: usize,
    thread: usize,
    switch: Switch,
    outbox: Outbox,
    super_frame: Box<[u8]>,
    /// The frame read last was a super-frame: expect another one.
    expects_super: bool,
    budget: usize,
}

impl Outward {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared>, worker: usize, seed: u64) -> Outward {
        let thread = 2 * worker;
        Outward {
            shared,
            worker,
            thread,
            switch: Switch::new(seed),
            outbox: Outbox::new(thread),
            super_frame: vec![0; SUPER_FRAME_OCTETS + 64].into_boxed_slice(),
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
            if turn == Turn::Again {
                continue;
            }
            let queue = match (turn, shared.tap.load().as_ref()) {
                (Turn::Wait, Some(tap)) => tap.queue_to_read(self.worker).unwrap_or(-1),
                _ => -1,
            };
            let timeout = (turn == Turn::Pause).then_some(ERROR_PAUSE);
            if wait_readable(&[queue, wake.as_raw_fd()], timeout) & 0b10 != 0 {
                wake.clear();
            }
        }
    }

    /// Read up to the budget, and send.
    fn turn(&mut self, shared: &Shared) -> Turn {
        let tap = shared.tap.load();
        let table = shared.table.load();
        let sockets = shared.sockets.load();
        let socket = sockets.get(self.worker).or(sockets.first()).map(Arc::as_ref);
        let now = now();
        let queue = tap.as_ref().and_then(|tap| Some((tap, tap.queue_to_read(self.worker)?)));
        let Some((tap, queue)) = queue else {
            self.outbox.flush(shared, socket, now);
            return Turn::Wait;
        };
        let mut reads = 0;
        let mut turn = Turn::Again;
        while reads < self.budget {
            if !self.outbox.has_room(tap.room) {
                self.outbox.flush(shared, socket, now);
            }
            let into_super = self.expects_super;
            let room = if into_super { &mut self.super_frame[..] } else { self.outbox.landing(tap.vnet) };
            let room_octets = tap.room.min(room.len());
            match read(queue, &mut room[..room_octets]) {
                Ok(0) => {
                    // End of file: what is behind the descriptor was closed.
                    shared.lose_tap(tap, ENODEV);
                    turn = Turn::Wait;
                    break;
                }
                Ok(octets) => {
                    reads += 1;
                    self.forward(shared, tap, &table, socket, into_super, octets, now);
                    if self.outbox.octets() >= FLUSH_OCTETS {
                        self.outbox.flush_full(shared, socket, now);
                    }
                }
                Err(EAGAIN) => {
                    turn = Turn::Wait;
                    break;
                }
                Err(EINTR) => {}
                Err(number) => {
                    turn = Turn::Pause;
                    if judge(queue, number) == Failure::Gone {
                        shared.lose_tap(tap, if number == 0 { EBADFD } else { number });
                        turn = Turn::Wait;
                    }
                    break;
                }
            }
        }
        // A lone frame goes out before the next one is looked for.
        if turn == Turn::Again && (self.expects_super || self.budget > 1) {
            self.outbox.flush_full(shared, socket, now);
        } else {
            self.outbox.flush(shared, socket, now);
        }
        self.budget = if turn == Turn::Again { (self.budget * 2).min(BUDGET_READS) } else { reads.max(1) };
        turn
    }

    /// One read: `octets` at the start of the super-frame buffer, or of the outbox' landing.
    #[allow(clippy::too_many_arguments)] // one caller; the parts are borrowed from different guards
    fn forward(
        &mut self,
        shared: &Shared,
        tap: &Tap,
        table: &Table,
        socket: Option<&UdpSocket>,
        in_super: bool,
        octets: usize,
        now: Nanos,
    ) {
        let vnet_octets = tap.vnet;
        let packet = if in_super { &self.super_frame[..] } else { self.outbox.landing(vnet_octets) };
        if octets < vnet_octets + LEAST_FRAME_OCTETS {
            shared.lose(Transmit, Reason::ShortFrame, 1, None);
            return;
        }
        let vnet = match vnet_octets {
            0 => VnetHeader::default(),
            _ => VnetHeader::parse(packet).unwrap_or_default(),
        };
        let length = octets - vnet_octets;
        self.expects_super = vnet.is_super();
        if vnet.is_super() {
            if !in_super {
                let landed = self.outbox.landing(0);
                self.super_frame[vnet_octets..octets].copy_from_slice(&landed[..length]);
            }
            self.forward_super(shared, table, socket, &vnet, vnet_octets..octets, now);
            return;
        }
        if in_super {
            self.outbox.landing(0)[..length].copy_from_slice(&self.super_frame[vnet_octets..octets]);
        }
        self.forward_plain(shared, table, socket, &vnet, length, now);
    }

    /// The frame at the outbox' landing.
    fn forward_plain(
        &mut self,
        shared: &Shared,
        table: &Table,
        socket: Option<&UdpSocket>,
        vnet: &VnetHeader,
        length: usize,
        now: Nanos,
    ) {
        let frame = &mut self.outbox.landing(0)[..length];
        if vnet.needs_checksum() && complete_checksum(vnet, frame).is_err() {
            shared.lose(Transmit, Reason::BadLength, 1, None);
            return;
        }
        if shared.settings.mss_limit > 0 && clamp_mss(frame, shared.settings.mss_limit) {
            shared.cells[self.thread].mss_clamped.add(1);
        }
        let verdict =
            self.switch.decide(&shared.fdb, None, frame, true, now, |station| shared.tell_move(table, station));
        let target = match verdict.target {
            Ok(target) => target,
            Err(reason) => {
                shared.lose(Transmit, reason, 1, None);
                return;
            }
        };
        let kind = Some(verdict.kind);
        match target {
            Target::Nowhere | Target::Tap => {}
            Target::Peer(port) => {
                if let Some(peer) = table.at_port(port) {
                    self.outbox.place(peer, kind, length);
                    return;
                }
                self.flood_plain(shared, table, socket, kind, length, now);
            }
            Target::Flood => self.flood_plain(shared, table, socket, kind, length, now),
        }
    }

    fn flood_plain(
        &mut self,
        shared: &Shared,
        table: &Table,
        socket: Option<&UdpSocket>,
        kind: Option<FrameKind>,
        length: usize,
        now: Nanos,
    ) {
        let Some((first, others)) = table.peers.split_first() else {
            // Without peers there is nowhere to go at all.
            shared.lose(Transmit, Reason::NoPeer, 1, None);
            return;
        };
        self.outbox.place(first, kind, length);
        for peer in others {
            if !self.outbox.has_room(length) {
                // The buffer will be sealed and used anew: keep the frame for those who have not got it yet.
                self.super_frame[..length].copy_from_slice(self.outbox.newest_payload(length));
                self.outbox.flush(shared, socket, now);
                self.outbox.place_copy(peer, kind, &self.super_frame[..length]);
            } else {
                self.outbox.place_again(peer, kind, length);
            }
        }
    }

    fn forward_super(
        &mut self,
        shared: &Shared,
        table: &Table,
        socket: Option<&UdpSocket>,
        vnet: &VnetHeader,
        frame: std::ops::Range<usize>,
        now: Nanos,
    ) {
        let frame = &self.super_frame[frame];
        let Ok(parsed) = SuperFrame::parse(vnet, frame) else {
            shared.lose(Transmit, Reason::BadLength, 1, None);
            return;
        };
        let count = parsed.cut(0).count as u64;
        let verdict =
            self.switch.decide(&shared.fdb, None, frame, true, now, |station| shared.tell_move(table, station));
        let one;
        let peers: &[Arc<Peer>] = match verdict.target {
            Err(reason) => {
                shared.lose(Transmit, reason, count, None);
                return;
            }
            Ok(Target::Nowhere | Target::Tap) => return,
            Ok(Target::Peer(port)) => match table.at_port(port) {
                Some(peer) => {
                    one = Arc::clone(peer);
                    std::slice::from_ref(&one)
                }
                None => &table.peers,
            },
            Ok(Target::Flood) => &table.peers,
        };
        if peers.is_empty() {
            shared.lose(Transmit, Reason::NoPeer, count, None);
        }
        for peer in peers {
            let fitting = peer.path.load().fitting.load(Relaxed);
            let overhead = peer.header(0).overhead();
            let fit = if fitting == usize::MAX { 0 } else { fitting.saturating_sub(overhead) };
            let mut cut = parsed.cut(fit);
            if cut.payload < usize::from(vnet.gso_size) {
                shared.cells[self.thread].mss_fitted.add(1);
                // As many segments of about one size: a small rest would be a frame of its own all the way.
                let octets = frame.len() - parsed.header_len();
                cut = parsed.cut(parsed.header_len() + octets.div_ceil(cut.count));
            }
            for index in 0..cut.count {
                if !self.outbox.has_room(cut.first_len) || self.outbox.octets() >= FLUSH_OCTETS * 2 {
                    self.outbox.flush_full(shared, socket, now);
                }
                let written = parsed.write(&cut, index, self.outbox.room_for(peer, verdict.kind));
                if written == 0 {
                    shared.lose(Transmit, Reason::BadLength, 1, Some(peer));
                } else {
                    self.outbox.place_written(written);
                }
            }
        }
    }
}

const _: () = assert!(OVERHEAD_V2 >= bridged_core::vnet::LONG_OCTETS);
