//! Frames for peers: collected by peer, sealed into one buffer, and sent in as few calls as possible.
//!
//! Source: docs/protocol/data.md#2-1.
//! A frame that was read or cut into the buffer is framed and sealed in place. One for several peers, or one received
//! from another peer, is sealed once for each peer from where it is, without a copy. Each peer's frames
//! leave in the order in which they were placed; equal ones lie end to end and form a UDP_SEGMENT run.
//! The peer's send lock is held while packet ids are taken and packets are sent: they leave in order
//! from all threads (OpenVPN's replay window has 64 places).

use std::sync::atomic::Ordering::{Acquire, Relaxed};
use std::sync::Arc;

use bridged_core::fragment::{part_header, part_octets, FRAGMENT_HEADER, PARTS_MOST};
use bridged_core::framing::{Framing, ADDED_MOST};
use bridged_core::layout::{Layout, MOST_OVERHEAD};
use bridged_core::packet::{DataHeader, OVERHEAD_V2};
use bridged_core::stats::{FrameKind, FRAME_KINDS};
use bridged_core::vnet::LONG_OCTETS;
use bridged_sys::memory::resident;

use crate::contract::{Direction, Endpoint, Event};
use crate::control::counters::{Counters, Drops, Reason};
use crate::lan_to_wan::pending::{PendingFrame, PendingFrames, PendingPeer, Place, Shape};
use crate::sync::{lock, try_lock, MutexGuard};
use crate::tables::keys::{KeySlot, Reserved};
use crate::tables::peers::Peer;
use crate::transport::seam::{BatchSender, Packet, PeerPath, SendContext, Transport, LONGEST_PACKET, PACKET_OCTETS};

/// Bytes of the buffer.
const ARENA_OCTETS: usize = 256 * 1024;
/// The most bytes around a frame, cut into all the parts that it may be cut into.
const AROUND_MOST: usize = PARTS_MOST * (MOST_OVERHEAD + FRAGMENT_HEADER) + ADDED_MOST;
/// Most peers whose packets are sent in one call, holding the send locks of all of them.
const GROUP_PEERS: usize = 64;

/// See the module. `thread`: its owner's place in the counters.
pub struct PeerBatcher<T: Transport> {
    thread: usize,
    arena: Arena,
    /// Bytes that `write_slot` leaves in front of a frame: what the peer of the latest one needs.
    landing: usize,
    /// Bytes of the arena that sealing will need, in addition to those in use.
    owed: usize,
    queue: PendingFrames<T>,
    batches: Vec<SealedBatch>,
    sender: T::Sender,
}

/// The buffer that packets are sealed in.
struct Arena {
    octets: Box<[u8]>,
    /// Bytes in use.
    used: usize,
    sealed: Vec<Packet>,
}

const _: () = assert!(OVERHEAD_V2 >= LONG_OCTETS);

/// What was sealed for one peer.
#[derive(Debug, Default)]
struct SealedBatch {
    packets: usize,
    octets: usize,
    /// Frames and their bytes, by kind.
    frames: [(u64, u64); FRAME_KINDS],
}

impl<T: Transport> PeerBatcher<T> {
    /// An empty one.
    pub fn new(thread: usize) -> PeerBatcher<T> {
        PeerBatcher {
            thread,
            arena: Arena { octets: resident(ARENA_OCTETS), used: 0, sealed: Vec::with_capacity(2048) },
            landing: OVERHEAD_V2,
            owed: 0,
            queue: PendingFrames::new(),
            batches: Vec::with_capacity(GROUP_PEERS),
            sender: T::Sender::new(thread),
        }
    }

    /// Bytes that wait to be sent.
    #[inline]
    pub fn octets(&self) -> usize {
        self.arena.used + self.owed
    }

    /// Whether a frame of this many bytes still fits.
    #[inline]
    pub fn has_room(&self, frame: usize) -> bool {
        self.arena.used + self.owed + AROUND_MOST + frame <= self.arena.octets.len() && self.queue.has_room()
    }

    /// Give all that is queued from now on this traffic class (the whole byte; 0: none) in the outer IP header.
    #[inline]
    pub fn set_class(&mut self, class: u8) {
        self.queue.set_class(class);
    }

    /// Where to write the next frame, with `before` bytes in front of it (a virtio-net header at most).
    #[inline]
    pub fn write_slot(&mut self, before: usize) -> &mut [u8] {
        let at = (self.arena.used + self.landing - before).min(self.arena.octets.len());
        &mut self.arena.octets[at..]
    }

    /// Queue the frame in `write_slot` for a peer. `kind` None: it is no frame, and not counted as
    /// one.
    #[inline]
    pub fn place(&mut self, peer: &Arc<Peer<T>>, kind: Option<FrameKind>, length: usize) {
        let shape = self.queue.find(peer);
        let front = shape.front();
        if front != self.landing {
            let landed = self.arena.used + self.landing;
            self.arena.octets.copy_within(landed..landed + length, self.arena.used + front);
            self.landing = front.max(LONG_OCTETS);
        }
        self.place_here(kind, shape, length);
    }

    /// Queue a copy of a frame that lies elsewhere, if it fits (ask `has_room` before).
    #[inline]
    pub fn place_copy(&mut self, peer: &Arc<Peer<T>>, kind: Option<FrameKind>, frame: &[u8]) {
        let shape = self.queue.find(peer);
        let at = self.arena.used + shape.front();
        let Some(room) = self.arena.octets.get_mut(at..at + frame.len()) else { return };
        room.copy_from_slice(frame);
        self.place_here(kind, shape, frame.len());
    }

    /// Where a frame to this peer is to be written, for `place_written`.
    #[inline]
    pub fn room_for(&mut self, peer: &Arc<Peer<T>>) -> &mut [u8] {
        let at = self.arena.used + self.queue.find(peer).front();
        &mut self.arena.octets[at..]
    }

    /// Queue the frame that was written to `room_for` this peer.
    #[inline]
    pub fn place_written(&mut self, kind: FrameKind, length: usize) {
        let Some(shape) = self.queue.found().map(|waiter| waiter.shape) else { return };
        self.place_here(Some(kind), shape, length);
    }

    #[inline]
    fn place_here(&mut self, kind: Option<FrameKind>, shape: Shape, length: usize) {
        let mut payload = length;
        if shape.framing != Framing::None || shape.fragment > 0 {
            let at = self.arena.used + shape.layout.front + shape.header();
            payload += shape.framing.wrap(&mut self.arena.octets[at..], length);
            if shape.fragment > 0 {
                if payload > shape.most() {
                    return self.place_parts(kind, shape, payload, length);
                }
                self.arena.octets[at - FRAGMENT_HEADER..at].fill(0);
                payload += FRAGMENT_HEADER;
            }
        }
        self.queue.push(Place::Here, kind, self.arena.used, payload, length);
        self.arena.used += shape.layout.sealed(payload);
    }

    /// Cut what stands where `place_here` has framed it, `payload` bytes of a frame of `length`, and queue the parts.
    fn place_parts(&mut self, kind: Option<FrameKind>, shape: Shape, payload: usize, length: usize) {
        let Some(peer) = self.queue.found().map(|waiter| &waiter.peer) else { return };
        let sequence = peer.fragment_sequence.fetch_add(1, Relaxed);
        // Rather larger parts than more of them than the far end takes.
        let size = part_octets(payload, shape.most()).max(payload.div_ceil(PARTS_MOST).next_multiple_of(4));
        let count = payload.div_ceil(size);
        let begin = self.arena.used;
        let front = shape.layout.front + FRAGMENT_HEADER;
        let step = shape.layout.sealed(FRAGMENT_HEADER + size);
        let part = |number: usize| (number * size, size.min(payload - number * size));
        // From the last one on: each moves to behind where it was.
        for number in (0..count).rev() {
            let (from, octets) = part(number);
            let (from, to) = (begin + front + from, begin + number * step + front);
            self.arena.octets.copy_within(from..from + octets, to);
            let header = part_header(sequence, number, number + 1 == count, size);
            self.arena.octets[to - FRAGMENT_HEADER..to].copy_from_slice(&header);
        }
        for number in 0..count {
            // The frame is counted once.
            let (kind, frame) = if number == 0 { (kind, length) } else { (None, 0) };
            let (_, octets) = part(number);
            self.queue.push(Place::Here, kind, begin + number * step, FRAGMENT_HEADER + octets, frame);
            self.arena.used = begin + number * step + shape.layout.sealed(FRAGMENT_HEADER + octets);
        }
    }

    /// Whether a frame to this peer is cut: `place_from` cannot do that.
    #[inline]
    pub fn is_cut(&mut self, peer: &Arc<Peer<T>>, length: usize) -> bool {
        peer.fragment > 0 && is_cut(&self.queue.find(peer), length)
    }

    /// Queue a frame that lies at `start` of the bytes that `flush_from` will be given (ask `has_room`
    /// before), with some of them around it.
    #[inline]
    pub fn place_from(&mut self, peer: &Arc<Peer<T>>, kind: FrameKind, start: usize, length: usize) {
        let shape = self.queue.find(peer);
        self.queue.push(Place::Outside, Some(kind), start, length, length);
        self.owed += shape.sealed_most(length);
    }

    /// Queue the frame in `write_slot` for all these peers.
    pub fn flood(&mut self, peers: &[Arc<Peer<T>>], kind: FrameKind, length: usize, context: &SendContext<'_, T>) {
        if let [only] = peers {
            return self.place(only, Some(kind), length);
        }
        let mut at = self.keep(length);
        for peer in peers {
            if !self.has_room(length) {
                self.flush(context);
                self.arena.octets.copy_within(at..at + length, self.landing);
                at = self.keep(length);
            }
            let shape = self.queue.find(peer);
            if is_cut(&shape, length) {
                self.arena.octets.copy_within(at..at + length, self.arena.used + shape.front());
                self.place_here(Some(kind), shape, length);
                continue;
            }
            self.queue.push(Place::Kept, Some(kind), at, length, length);
            self.owed += shape.sealed_most(length);
        }
    }

    /// Keep the frame at `write_slot` unchanged; returns where it begins.
    fn keep(&mut self, length: usize) -> usize {
        let at = self.arena.used + self.landing;
        // One byte more, which framing may use.
        self.arena.used = at + length + 1;
        at
    }

    /// Seal and send all that waits.
    pub fn flush(&mut self, context: &SendContext<'_, T>) {
        self.flush_from(&mut [], context);
    }

    /// As [`flush`](Self::flush); frames that were placed with `place_from` lie in `outside`.
    pub fn flush_from(&mut self, outside: &mut [u8], context: &SendContext<'_, T>) {
        let mut first = 0;
        while first < self.queue.peers().len() {
            first = self.send_group(first, outside, context);
        }
        self.queue.clear();
        self.arena.used = 0;
        self.owed = 0;
    }

    /// As [`flush`](Self::flush), but keep back a last part that more of the same can make a larger send. For callers
    /// that look for more at once.
    pub fn flush_full(&mut self, context: &SendContext<'_, T>) {
        let Some((waiter, newest)) = self.queue.tail() else { return };
        let layout = waiter.shape.layout;
        let lengths = newest.iter().map(|waiting| layout.sealed(waiting.length));
        let kept = self.sender.open_end(lengths, &waiter.peer.path.load(), context);
        let Some(tail) = self.queue.split_tail(kept) else {
            return self.flush(context);
        };
        let end = self.arena.used;
        self.flush(context);
        self.arena.octets.copy_within(tail.start..end, 0);
        self.arena.used = end - tail.start;
        self.queue.begin_with(tail);
    }

    /// Seal and send what waits for the next peers, from the one of number `first` on; the number of the first one
    /// left.
    fn send_group(&mut self, first: usize, outside: &mut [u8], context: &SendContext<'_, T>) -> usize {
        let PeerBatcher { thread, arena, queue, batches, sender, .. } = self;
        let peers = &queue.peers()[first..];
        let mut turns: [Option<MutexGuard<'_, ()>>; GROUP_PEERS] = std::array::from_fn(|_| None);
        sender.clear();
        batches.clear();
        arena.sealed.clear();
        for (waiter, turn) in peers.iter().zip(&mut turns) {
            // While we hold a send lock, only try the next one. Waiting could deadlock two threads.
            let taken =
                if batches.is_empty() { Some(lock(&waiter.peer.send_lock)) } else { try_lock(&waiter.peer.send_lock) };
            let Some(taken) = taken else { break };
            let begin = arena.sealed.len();
            batches.push(seal(arena, waiter, queue, outside, context));
            let packets = &arena.sealed[begin..];
            if !packets.is_empty() {
                *turn = Some(taken);
            }
            sender.add(packets, &waiter.peer.path.load(), context);
        }
        sender.send(&arena.octets, context, |number| &peers[number].peer.path);
        drop(turns);
        for (number, (batch, waiter)) in batches.iter().zip(peers).enumerate() {
            if batch.packets == 0 {
                continue;
            }
            let cells = &waiter.peer.cells[*thread];
            let way = cells.direction(Direction::Transmit);
            let taken = sender.taken(number);
            way.wire.add(taken.packets as u64);
            way.wire_octets.add(taken.octets as u64);
            for (kind, (frames, octets)) in FrameKind::ALL.into_iter().zip(batch.frames) {
                if frames > 0 {
                    way.count(kind, frames, octets);
                }
            }
            cells.sent_at.set(context.now);
        }
        first + batches.len()
    }

    /// Send one control packet as it is.
    ///
    /// # Errors
    /// The drop reason.
    pub fn send_control(
        &mut self,
        packet: &[u8],
        endpoint: Endpoint,
        context: &SendContext<'_, T>,
    ) -> Result<(), Reason> {
        self.sender.send_control(packet, endpoint, context)
    }
}

/// Seal what waits for one peer, holding its send lock.
fn seal<T: Transport>(
    arena: &mut Arena,
    waiter: &PendingPeer<T>,
    queue: &PendingFrames<T>,
    outside: &mut [u8],
    context: &SendContext<'_, T>,
) -> SealedBatch {
    let mut batch = SealedBatch::default();
    if waiter.count == 0 {
        return batch;
    }
    let peer = &waiter.peer;
    let mut slot = peer.sealing.load();
    if slot.is_none() && peer.has_sealed.load(Acquire) {
        // Its first key may have come between the two looks.
        slot = peer.sealing.load();
    }
    let Some(slot) = slot.as_ref() else {
        let reason = if peer.is_here() { Reason::NoKey } else { Reason::NoPeer };
        drop_pending(queue.of(waiter), reason, &peer.drops, context.counters);
        return batch;
    };
    let header = DataHeader { key_id: slot.key_id, peer_id: waiter.shape.peer_id };
    if Layout::of(&header, slot.format) != waiter.shape.layout {
        // Its first key came in between, and packs frames differently: there is no room for that.
        drop_pending(queue.of(waiter), Reason::NoKey, &peer.drops, context.counters);
        return batch;
    }
    let room = peer.path.load().room();
    let is_stream = room != usize::MAX;
    let count = if is_stream { fitting(waiter, queue, room, context.counters) } else { waiter.count };
    let mut ids = slot.reserve(count);
    let mut waiting = queue.of(waiter).filter(|next| !is_stream || is_writable(waiter, next)).take(count);
    while let Some(next) = waiting.next() {
        let sealed = arena.seal(next, slot, (&header, &waiter.shape), outside, &mut ids);
        let Some(packet) = sealed else {
            drop_pending(std::iter::once(next).chain(waiting), Reason::KeyExpired, &peer.drops, context.counters);
            break;
        };
        arena.sealed.push(packet);
        batch.packets += 1;
        batch.octets += packet.length - waiter.shape.layout.front;
        if let Some(kind) = next.kind {
            let (frames, octets) = &mut batch.frames[kind as usize];
            *frames += 1;
            *octets += next.frame as u64;
        }
    }
    slot.count_sent(batch.octets);
    if let Some(trigger) = slot.limit_reached() {
        // A state event is never refused.
        context.events.put(Event::KeyNearLimit { handle: peer.handle, key_id: slot.key_id, trigger });
    }
    batch
}

impl Arena {
    /// Seal one packet, in place or into what is free; None where there is no packet id for it.
    #[inline]
    fn seal(
        &mut self,
        waiting: &PendingFrame,
        slot: &KeySlot,
        (header, shape): (&DataHeader, &Shape),
        outside: &mut [u8],
        ids: &mut Reserved,
    ) -> Option<Packet> {
        let (before, free) = self.octets.split_at_mut(self.used);
        let class = waiting.class;
        if waiting.place == Place::Here {
            let (start, length) = (waiting.at, shape.layout.sealed(waiting.length));
            let room = before.get_mut(start..start + length)?;
            return slot.seal(header, room, waiting.length, ids).then_some(Packet { start, length, class });
        }
        let source = if waiting.place == Place::Kept { before } else { outside };
        let length = shape.framing.lend(source, waiting.at, waiting.length, shape.header(), |payload| {
            let length = shape.layout.sealed(payload.len());
            slot.seal_from(header, payload, free.get_mut(..length)?, ids).then_some(length)
        })??;
        let start = self.used;
        self.used += length;
        Some(Packet { start, length, class })
    }
}

/// Whether the packet of a frame is not too long for a stream.
fn is_writable<T: Transport>(waiter: &PendingPeer<T>, waiting: &PendingFrame) -> bool {
    waiter.shape.sealed_most(waiting.length) <= LONGEST_PACKET
}

/// How many of a peer's writable frames its path has room for; the others are dropped before they get a packet id.
#[cold]
fn fitting<T: Transport>(
    waiter: &PendingPeer<T>,
    queue: &PendingFrames<T>,
    mut room: usize,
    counters: &Counters,
) -> usize {
    let too_long = queue.of(waiter).filter(|waiting| !is_writable(waiter, waiting));
    drop_pending(too_long, Reason::TcpTooLong, &waiter.peer.drops, counters);
    let writable = || queue.of(waiter).filter(move |waiting| is_writable(waiter, waiting));
    let takes = |waiting: &&PendingFrame| {
        let octets = PACKET_OCTETS + waiter.shape.sealed_most(waiting.length);
        let fits = octets <= room;
        room = if fits { room - octets } else { 0 };
        fits
    };
    let count = writable().take_while(takes).count();
    drop_pending(writable().skip(count), Reason::TcpSendFull, &waiter.peer.drops, counters);
    count
}

/// Whether a frame may need more than one packet.
fn is_cut(shape: &Shape, length: usize) -> bool {
    length + shape.framing.most() > shape.most()
}

#[cold]
fn drop_pending<'a>(
    waiting: impl Iterator<Item = &'a PendingFrame>,
    reason: Reason,
    drops: &Drops,
    counters: &Counters,
) {
    let frames = waiting.filter(|waiting| waiting.kind.is_some()).count();
    counters.count_drops(Direction::Transmit, reason, frames as u64, Some(drops));
}

#[cfg(test)]
#[path = "peer_batches_tests.rs"]
mod tests;
