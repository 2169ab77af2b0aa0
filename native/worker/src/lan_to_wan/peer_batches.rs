//! Frames for peers: collected by peer, sealed into one buffer, and sent in as few calls as possible.
//!
//! Source: docs/protocol/data.md#2-1.
//! A frame that was read or cut into the buffer is sealed in place. One for several peers, or one received
//! from another peer, is sealed once for each peer from where it is, without a copy. Each peer's frames
//! leave in the order in which they were placed; equal ones lie end to end and form a UDP_SEGMENT run.
//! The peer's send lock is held while packet ids are taken and packets are sent: they leave in order
//! from all threads (OpenVPN's replay window has 64 places).

use std::sync::atomic::Ordering::Acquire;
use std::sync::Arc;

use bridged_core::layout::{Layout, MOST_OVERHEAD};
use bridged_core::packet::{DataHeader, OVERHEAD_V2};
use bridged_core::stats::{FrameKind, FRAME_KINDS};
use bridged_sys::memory::resident;

use crate::contract::{Direction, Endpoint, Event};
use crate::control::counters::{Counters, Drops, Reason};
use crate::lan_to_wan::pending::{PendingFrame, PendingFrames, PendingPeer, Place};
use crate::sync::{lock, try_lock, MutexGuard};
use crate::tables::keys::{KeySlot, Reserved};
use crate::tables::peers::Peer;
use crate::transport::seam::{BatchSender, Packet, PeerPath, SendContext, Transport, PACKET_OCTETS};

/// Bytes of the buffer.
const ARENA_OCTETS: usize = 256 * 1024;
/// Most peers whose packets are sent in one call, holding the send locks of all of them.
const GROUP_PEERS: usize = 64;

/// See the module. `thread`: its owner's place in the counters.
pub struct PeerBatcher<T: Transport> {
    thread: usize,
    arena: Arena,
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
        self.arena.used + self.owed + MOST_OVERHEAD + frame <= self.arena.octets.len() && self.queue.has_room()
    }

    /// Give all that is queued from now on this traffic class (the whole byte; 0: none) in the outer IP header.
    #[inline]
    pub fn set_class(&mut self, class: u8) {
        self.queue.set_class(class);
    }

    /// Where to write the next frame, with `before` bytes in front of it (at most 24).
    #[inline]
    pub fn write_slot(&mut self, before: usize) -> &mut [u8] {
        let at = (self.arena.used + OVERHEAD_V2 - before).min(self.arena.octets.len());
        &mut self.arena.octets[at..]
    }

    /// Queue the frame in `write_slot` for a peer. `kind` None: it is no frame, and not counted as
    /// one.
    #[inline]
    pub fn place(&mut self, peer: &Arc<Peer<T>>, kind: Option<FrameKind>, length: usize) {
        let layout = self.queue.find(peer);
        let landed = self.arena.used + OVERHEAD_V2;
        if layout.front != OVERHEAD_V2 {
            self.arena.octets.copy_within(landed..landed + length, self.arena.used + layout.front);
        }
        self.place_here(kind, layout, length);
    }

    /// Queue a copy of a frame that lies elsewhere, if it fits (ask `has_room` before).
    #[inline]
    pub fn place_copy(&mut self, peer: &Arc<Peer<T>>, kind: Option<FrameKind>, frame: &[u8]) {
        let layout = self.queue.find(peer);
        let at = self.arena.used + layout.front;
        let Some(room) = self.arena.octets.get_mut(at..at + frame.len()) else { return };
        room.copy_from_slice(frame);
        self.place_here(kind, layout, frame.len());
    }

    /// Where a frame to this peer is to be written, for `place_written`.
    #[inline]
    pub fn room_for(&mut self, peer: &Arc<Peer<T>>) -> &mut [u8] {
        let at = self.arena.used + self.queue.find(peer).front;
        &mut self.arena.octets[at..]
    }

    /// Queue the frame that was written to `room_for` this peer.
    #[inline]
    pub fn place_written(&mut self, kind: FrameKind, length: usize) {
        let Some(layout) = self.queue.found().map(|waiter| waiter.layout) else { return };
        self.place_here(Some(kind), layout, length);
    }

    #[inline]
    fn place_here(&mut self, kind: Option<FrameKind>, layout: Layout, length: usize) {
        self.queue.push(Place::Here, kind, self.arena.used, length);
        self.arena.used += layout.sealed(length);
    }

    /// Queue a frame that lies at `start` of the bytes that `flush_from` will be given (ask `has_room`
    /// before).
    #[inline]
    pub fn place_from(&mut self, peer: &Arc<Peer<T>>, kind: FrameKind, start: usize, length: usize) {
        let layout = self.queue.find(peer);
        self.queue.push(Place::Outside, Some(kind), start, length);
        self.owed += layout.sealed(length);
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
                self.arena.octets.copy_within(at..at + length, OVERHEAD_V2);
                at = self.keep(length);
            }
            let layout = self.queue.find(peer);
            self.queue.push(Place::Kept, Some(kind), at, length);
            self.owed += layout.sealed(length);
        }
    }

    /// Keep the frame at `write_slot` unchanged; returns where it begins.
    fn keep(&mut self, length: usize) -> usize {
        let at = self.arena.used + OVERHEAD_V2;
        self.arena.used = at + length;
        at
    }

    /// Seal and send all that waits.
    pub fn flush(&mut self, context: &SendContext<'_, T>) {
        self.flush_from(&[], context);
    }

    /// As [`flush`](Self::flush); frames that were placed with `place_from` lie in `outside`.
    pub fn flush_from(&mut self, outside: &[u8], context: &SendContext<'_, T>) {
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
        let layout = waiter.layout;
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
    fn send_group(&mut self, first: usize, outside: &[u8], context: &SendContext<'_, T>) -> usize {
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
    outside: &[u8],
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
    let header = DataHeader { key_id: slot.key_id, peer_id: waiter.peer_id };
    if Layout::of(&header, slot.format) != waiter.layout {
        // Its first key came in between, and packs frames differently: there is no room for that.
        drop_pending(queue.of(waiter), Reason::NoKey, &peer.drops, context.counters);
        return batch;
    }
    let room = peer.path.load().room();
    let count = if room == usize::MAX { waiter.count } else { fitting(waiter, queue, room, context.counters) };
    let mut ids = slot.reserve(count);
    let mut waiting = queue.of(waiter).take(count);
    while let Some(next) = waiting.next() {
        let sealed = arena.seal(next, slot, (&header, &waiter.layout), outside, &mut ids);
        let Some(packet) = sealed else {
            drop_pending(std::iter::once(next).chain(waiting), Reason::KeyExpired, &peer.drops, context.counters);
            break;
        };
        arena.sealed.push(packet);
        batch.packets += 1;
        batch.octets += next.length;
        if let Some(kind) = next.kind {
            let (frames, octets) = &mut batch.frames[kind as usize];
            *frames += 1;
            *octets += next.length as u64;
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
        (header, layout): (&DataHeader, &Layout),
        outside: &[u8],
        ids: &mut Reserved,
    ) -> Option<Packet> {
        let length = layout.sealed(waiting.length);
        let (before, free) = self.octets.split_at_mut(self.used);
        let (start, is_sealed) = match waiting.place {
            Place::Here => {
                let room = before.get_mut(waiting.at..waiting.at + length)?;
                (waiting.at, slot.seal(header, room, waiting.length, ids))
            }
            Place::Kept | Place::Outside => {
                let source = if waiting.place == Place::Kept { &*before } else { outside };
                let frame = source.get(waiting.at..waiting.at + waiting.length)?;
                let start = self.used;
                self.used += length;
                (start, slot.seal_from(header, frame, free.get_mut(..length)?, ids))
            }
        };
        is_sealed.then_some(Packet { start, length, class: waiting.class })
    }
}

/// How many of a peer's frames its path has room for; the others are dropped before they get a packet id.
#[cold]
fn fitting<T: Transport>(
    waiter: &PendingPeer<T>,
    queue: &PendingFrames<T>,
    mut room: usize,
    counters: &Counters,
) -> usize {
    let takes = |waiting: &&PendingFrame| {
        let octets = PACKET_OCTETS + waiter.layout.sealed(waiting.length);
        let fits = octets <= room;
        room = if fits { room - octets } else { 0 };
        fits
    };
    let count = queue.of(waiter).take_while(takes).count();
    if count < waiter.count {
        drop_pending(queue.of(waiter).skip(count), Reason::TcpSendFull, &waiter.peer.drops, counters);
    }
    count
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
