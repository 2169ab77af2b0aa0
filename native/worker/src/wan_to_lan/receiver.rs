//! The thread that reads the socket: open, switch, and on to the TAP or to other peers.
//!
//! Source: docs/protocol/data.md#2-5, #3-2, #5-1, #6-3; `bridged/dataplane/portable/forwarding.py`.
//! Packets are opened where they were received, and written to the TAP from there.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::moderation::Moderation;
use bridged_core::mss::{clamp_mss, clamp_mss_to_frame};
use bridged_core::packet::{
    classify, is_unknown_session_notice, opcode, unknown_session_notice, Payload, HEADER_V2, NOTICE_OCTETS,
    OPCODE_DATA_V1, OPCODE_DATA_V2,
};
use bridged_core::stats::FrameKind;
use bridged_core::Nanos;
use bridged_sys::descriptor::wait_readable;
use bridged_sys::receive::{Message, Receiver};
use bridged_sys::thread::{now, rest, wait_exactly};
use bridged_sys::EAGAIN;

use crate::contract::Direction::Receive;
use crate::contract::Event;
use crate::control::answers::{AnswerBatch, Stranger};
use crate::control::control_queue::Sender;
use crate::control::counters::Reason;
use crate::lan_to_wan::forwarding::fit_of;
use crate::lan_to_wan::peer_batches::PeerBatcher;
use crate::shared::Shared;
use crate::sync::lock;
use crate::tables::keys::KeySlot;
use crate::tables::peers::{Peer, Table};
use crate::tables::stations::{Decision, Switch, Target};
use crate::wan_to_lan::tap_writer::{Frame, TapWriter};

/// Reads in one system call, 64 KiB each.
const SLOTS: usize = 64;
/// As many where that many came, and each was one packet: they make some super-frames.
const SINGLE_SLOTS: usize = 256;
/// Reads where the kernel gives many datagrams in each (UDP_GRO): more would not stay in the processor's cache; and where few come
/// at once: each costs something before the call. Only these have all their memory from the start, the others what a packet takes.
const FEW_SLOTS: usize = 8;
/// Octets of a read that is a large one.
const LARGE_OCTETS: usize = 8192;

/// The datagrams of one read with the same first octets.
struct Batch<'a> {
    source: SocketAddr,
    message: &'a Message,
    start: usize,
    length: usize,
    size: usize,
    is_v2: bool,
}

/// See the module.
pub struct WanReceiver {
    shared: Arc<Shared>,
    worker: usize,
    thread: usize,
    switch: Switch,
    batcher: PeerBatcher,
    receiver: Receiver,
    /// Reads to ask for next.
    slots: usize,
    moderation: Moderation,
    /// What was read last calls for a rest once the socket is empty.
    rests: bool,
    /// Opened frames of one batch.
    opened: Vec<Frame>,
    to_tap: TapWriter,
    /// Answers to strangers.
    answers_out: AnswerBatch,
}

impl WanReceiver {
    /// Of a worker; `seed` is random.
    pub fn new(shared: Arc<Shared>, worker: usize, seed: u64) -> WanReceiver {
        let thread = 2 * worker + 1;
        WanReceiver {
            shared,
            worker,
            thread,
            switch: Switch::new(seed),
            batcher: PeerBatcher::new(thread),
            receiver: Receiver::new(SINGLE_SLOTS, FEW_SLOTS),
            slots: FEW_SLOTS,
            moderation: Moderation::default(),
            rests: false,
            opened: Vec::with_capacity(4096),
            to_tap: TapWriter::new(worker, thread, seed),
            answers_out: AnswerBatch::new(),
        }
    }

    /// Move frames until the data plane stops.
    pub fn run(&mut self) {
        let shared = Arc::clone(&self.shared);
        let wakes = shared.wakes.load_full();
        let Some(wake) = wakes.get(self.thread) else { return };
        let pause = u64::from(shared.settings.moderation) * 1000;
        if pause > 0 {
            wait_exactly();
        }
        while !shared.is_stopping.load(Relaxed) {
            if self.turn(&shared) {
                continue;
            }
            if std::mem::take(&mut self.rests) && pause > 0 {
                rest(pause);
                continue;
            }
            let socket = shared.sockets.load().get(self.worker).map_or(-1, |socket| socket.as_raw_fd());
            if wait_readable(&[socket, wake.as_raw_fd()], None) & 0b10 != 0 {
                wake.clear();
            }
        }
    }

    /// Read once and forward; false where it is time to wait.
    fn turn(&mut self, shared: &Shared) -> bool {
        let sockets = shared.sockets.load();
        let Some(socket) = sockets.get(self.worker) else { return false };
        let count = match self.receiver.receive(socket, self.slots) {
            Ok(count) => count,
            // An ICMP error of an earlier datagram: it concerns nobody here.
            Err(number) => return number != EAGAIN,
        };
        let now = now();
        let mut octets = 0;
        let mut are_single = true;
        self.rests = false;
        for index in 0..count {
            let message = self.receiver.message(index);
            octets += message.length;
            self.rests |= self.moderation.observe(message.segment, now);
            if let Some(overflow) = message.overflow {
                shared.overflow.now[self.worker].store(u64::from(overflow), Relaxed);
            }
            let datagrams = if message.segment == 0 { 1 } else { message.length.div_ceil(message.segment) };
            shared.cells[self.thread].datagrams_per_receive.observe(datagrams, 1);
            are_single &= datagrams == 1;
            let table = shared.table.load();
            self.read_message(shared, &table, &message, index * self.receiver.stride(), now);
        }
        self.to_tap.write(shared, self.receiver.octets());
        self.batcher.flush_from(self.receiver.octets(), shared, Some(socket), now);
        self.answers_out.send(shared, socket);
        self.slots = match count {
            _ if count < FEW_SLOTS || octets > count * LARGE_OCTETS => FEW_SLOTS,
            _ if count < SLOTS || !are_single => SLOTS,
            _ => SINGLE_SLOTS,
        };
        // What came in alone was probably alone: ask for more only where there was much.
        octets > 2000
    }

    /// The datagrams of one read, which begin at `base`.
    fn read_message(&mut self, shared: &Shared, table: &Table, message: &Message, base: usize, now: Nanos) {
        let Some(source) = message.source else { return };
        if message.length == 0 {
            shared.count_drops(Receive, Reason::ShortPacket, 1, None);
            return;
        }
        let size = message.segment.max(1);
        let mut at = 0;
        while at < message.length {
            let octets = self.receiver.octets();
            let first = &octets[base + at..base + message.length.min(at + size)];
            let header = &first[..first.len().min(HEADER_V2)];
            let mut end = at + first.len();
            while end < message.length {
                let next = &octets[base + end..base + message.length.min(end + size)];
                if !next.starts_with(header) {
                    break;
                }
                end += next.len();
            }
            let is_v2 = opcode(first[0]) == OPCODE_DATA_V2;
            let batch = Batch { source, message, start: base + at, length: end - at, size, is_v2 };
            self.read_batch(shared, table, &batch, now);
            at = end;
        }
    }

    fn read_batch(&mut self, shared: &Shared, table: &Table, batch: &Batch<'_>, now: Nanos) {
        let datagrams = batch.length.div_ceil(batch.size) as u64;
        let octets = self.receiver.octets();
        let first = &octets[batch.start..batch.start + batch.length.min(batch.size)];
        let key_id = first[0] & 7;
        let peer = match (opcode(first[0]), first.first_chunk::<HEADER_V2>()) {
            (OPCODE_DATA_V2, Some(&[_, a, b, c])) => {
                table.find(u32::from_be_bytes([0, a, b, c]), &batch.source, &shared.endpoints)
            }
            (OPCODE_DATA_V2, None) => {
                shared.count_drops(Receive, Reason::ShortPacket, datagrams, None);
                return;
            }
            (OPCODE_DATA_V1, _) => shared.endpoints.at(&batch.source).map(Cow::Owned),
            _ => {
                self.read_control(shared, batch, now);
                return;
            }
        };
        let Some(peer) = peer.as_deref() else {
            shared.count_drops(Receive, Reason::UnknownPeerId, datagrams, None);
            self.notify_stranger(shared, batch, now);
            return;
        };
        let slot = peer.key_guard(key_id);
        let Some(slot) = slot.as_ref() else {
            if is_unknown_session_notice(first) && peer.path.load().endpoint == batch.source {
                shared.report(Event::SessionUnknown { handle: peer.handle });
                return;
            }
            shared.count_drops(Receive, Reason::UnknownKeyId, datagrams, Some(peer));
            self.notify_stranger(shared, batch, now);
            return;
        };
        self.read_data(shared, table, peer, slot, batch, now);
    }

    /// Data of nobody whom this server knows: a client that has not noticed that its session is gone would like to hear so.
    #[cold]
    fn notify_stranger(&mut self, shared: &Shared, batch: &Batch<'_>, now: Nanos) {
        let is_server = shared.answers.load().is_some();
        if !is_server || batch.size <= NOTICE_OCTETS || shared.endpoints.is_known(&batch.source) {
            return;
        }
        if shared.events.may_notify(&batch.source, now) {
            let key_id = self.receiver.octets()[batch.start] & 7;
            self.answers_out.put(shared, &unknown_session_notice(key_id), &batch.source, batch.message.pin);
        }
    }

    fn read_control(&mut self, shared: &Shared, batch: &Batch<'_>, now: Nanos) {
        let source = &batch.source;
        let peer = shared.endpoints.at(source).map(|peer| peer.handle);
        let answers = shared.answers.load();
        let answers = answers.as_deref().filter(|_| peer.is_none() && !shared.events.expects(source));
        let octets = self.receiver.octets();
        let mut is_pinned = false;
        for datagram in octets[batch.start..batch.start + batch.length].chunks(batch.size) {
            let sender = match answers.map(|answers| (answers, answers.judge(datagram, source, now))) {
                None => peer.map_or(Sender::Stranger, Sender::Peer),
                Some((answers, Ok(Stranger::Reset(session)))) => {
                    if shared.events.may_answer(source, &session, now) {
                        self.answers_out.answer(shared, answers, &session, source, batch.message.pin, now);
                    } else {
                        shared.count_drops(Receive, Reason::HandshakeRate, 1, None);
                    }
                    continue;
                }
                Some((_, Ok(Stranger::Proven))) => Sender::Proven,
                Some((_, Ok(Stranger::Unproven))) => Sender::Unproven,
                Some((_, Err(reason))) => Sender::Useless(reason),
            };
            match shared.events.put_control(datagram, *source, now, sender) {
                Ok(()) if !is_pinned => {
                    // Whoever answers it does so from the address that it was sent to.
                    is_pinned = true;
                    if let Some(pin) = batch.message.pin {
                        lock(&shared.pinned_sources).remember(*source, pin);
                    }
                }
                Ok(()) => {}
                Err(reason) => shared.count_drops(Receive, reason, 1, None),
            }
        }
    }

    fn read_data(
        &mut self,
        shared: &Shared,
        table: &Table,
        peer: &Arc<Peer>,
        slot: &KeySlot,
        batch: &Batch<'_>,
        now: Nanos,
    ) {
        self.opened.clear();
        let frames = &mut self.opened;
        let octets = &mut self.receiver.octets()[batch.start..];
        let opened = slot.open(
            octets,
            batch.length,
            batch.size,
            batch.is_v2,
            |at, length| frames.push(Frame { start: batch.start + at, length }),
            |reason| shared.count_drops(Receive, reason, 1, Some(peer)),
        );
        if let Some(trigger) = slot.limit_reached() {
            shared.report(Event::KeyNearLimit { handle: peer.handle, key_id: slot.key_id, trigger });
        }
        if opened.fresh == 0 {
            // Perhaps another peer's id, from before this end began.
            self.notify_stranger(shared, batch, now);
            return;
        }
        let path = peer.path.load();
        if path.endpoint != batch.source {
            if !shared.float(peer, batch.source, batch.message.pin, now) {
                shared.count_drops(Receive, Reason::FloatRefused, self.opened.len() as u64, Some(peer));
                return;
            }
        } else if batch.message.pin.is_some() && batch.message.pin != path.pin {
            shared.endpoints.repin(peer, &batch.source, batch.message.pin);
        }
        let cells = &peer.cells[self.thread];
        cells.heard_at.set(now);
        if peer.timers.is_expired.load(Relaxed) {
            peer.timers.is_expired.store(false, Relaxed);
        }
        let way = cells.direction(Receive);
        way.wire.add(opened.fresh as u64);
        way.wire_octets.add(opened.octets as u64);
        self.switch_frames(shared, table, peer, now);
    }

    /// Switch the frames in `opened`.
    fn switch_frames(&mut self, shared: &Shared, table: &Table, peer: &Arc<Peer>, now: Nanos) {
        let way = peer.cells[self.thread].direction(Receive);
        let forwards = shared.settings.forward_between_peers;
        let mss_limit = shared.sizes.mss_limit.load(Relaxed);
        // The answering host's segments go out by the way this SYN came.
        let fit = if shared.settings.mss_fits_path { fit_of(peer) } else { usize::MAX };
        let largest = shared.largest_frame.load(Relaxed);
        let mut known: Option<([u8; 12], Decision)> = None;
        let mut counted: (FrameKind, u64, u64) = (FrameKind::Unicast, 0, 0);
        for index in 0..self.opened.len() {
            let Frame { start, length } = self.opened[index];
            let frame = &mut self.receiver.octets()[start..start + length];
            match classify(frame) {
                Payload::Frame if length <= largest || shared.tap_carries(length, now) => {}
                Payload::Frame => {
                    shared.count_drops(Receive, Reason::LongFrame, 1, Some(peer));
                    continue;
                }
                Payload::Occ => {
                    shared.report_occ(peer, frame, now);
                    continue;
                }
                Payload::Ping | Payload::Short => continue,
            }
            if mss_limit > 0 && clamp_mss(frame, mss_limit) {
                shared.cells[self.thread].mss_clamped.add(1);
            }
            if fit != usize::MAX && clamp_mss_to_frame(frame, fit) {
                shared.cells[self.thread].mss_clamped.add(1);
            }
            let Some(&addresses) = frame.first_chunk::<12>() else { continue };
            let decision = match known {
                Some((before, decision)) if before == addresses => decision,
                _ => {
                    let decision = self.switch.decide(&shared.fdb, Some(peer), frame, forwards, now, |station| {
                        shared.report_move(table, station);
                    });
                    known = decision.target.is_ok().then_some((addresses, decision));
                    decision
                }
            };
            if decision.kind != counted.0 {
                way.count(counted.0, counted.1, counted.2);
                counted = (decision.kind, 0, 0);
            }
            counted.1 += 1;
            counted.2 += length as u64;
            self.deliver(shared, table, peer, &decision, Frame { start, length }, now);
        }
        way.count(counted.0, counted.1, counted.2);
    }

    #[inline]
    fn deliver(
        &mut self,
        shared: &Shared,
        table: &Table,
        peer: &Arc<Peer>,
        decision: &Decision,
        frame: Frame,
        now: Nanos,
    ) {
        match decision.target {
            Ok(Target::Tap) => self.to_tap.push(frame),
            Ok(Target::Nowhere) => {}
            Ok(Target::Peer(port)) => match table.at_port(port) {
                Some(other) => self.relay(shared, other, decision.kind, frame, now),
                None => self.flood(shared, table, peer, decision.kind, frame, now),
            },
            Ok(Target::Flood) => self.flood(shared, table, peer, decision.kind, frame, now),
            Err(reason) => shared.count_drops(Receive, reason, 1, Some(peer)),
        }
    }

    fn flood(&mut self, shared: &Shared, table: &Table, peer: &Arc<Peer>, kind: FrameKind, frame: Frame, now: Nanos) {
        self.to_tap.push(frame);
        if shared.settings.forward_between_peers {
            for other in &table.peers {
                if !Arc::ptr_eq(other, peer) {
                    self.relay(shared, other, kind, frame, now);
                }
            }
        }
    }

    fn relay(&mut self, shared: &Shared, other: &Arc<Peer>, kind: FrameKind, frame: Frame, now: Nanos) {
        if !self.batcher.has_room(frame.length) {
            let sockets = shared.sockets.load();
            let socket = sockets.get(self.worker).map(Arc::as_ref);
            self.batcher.flush_from(self.receiver.octets(), shared, socket, now);
        }
        let octets = &self.receiver.octets()[frame.start..frame.start + frame.length];
        self.batcher.set_class(shared.settings.priority.dscp(octets) << 2);
        self.batcher.place_from(other, kind, frame.start, frame.length);
    }
}

#[cfg(test)]
#[path = "receiver_tests.rs"]
mod tests;
