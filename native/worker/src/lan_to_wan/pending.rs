//! What waits to be sent, by peer. Each peer's frames stay in the order in which they came.
//!
//! Pure: no bytes, no sockets. A peer is found by its port in a small table of open addresses; nothing is allocated
//! once the vectors have their size.

use std::sync::Arc;

use bridged_core::fragment::FRAGMENT_HEADER;
use bridged_core::framing::Framing;
use bridged_core::layout::Layout;
use bridged_core::stats::FrameKind;

use crate::tables::peers::Peer;
use crate::transport::seam::Transport;

/// Most peers; with more, `has_room` is false.
pub const QUEUE_PEERS: usize = 512;
/// Places of the table; at most half of them are taken.
const PLACES: usize = 2 * QUEUE_PEERS;
/// Most frames, likewise.
const QUEUE_FRAMES: usize = 8192;
const NONE: usize = usize::MAX;

/// Where a waiting frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// In the buffer, behind room for its header: it can be sealed there.
    Here,
    /// In the buffer, for several peers.
    Kept,
    /// Outside of the buffer.
    Outside,
}

/// How a peer's frames are packed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shape {
    /// Its id on the wire.
    pub peer_id: Option<u32>,
    /// How much room its packets get around a payload.
    pub layout: Layout,
    /// How a frame becomes a payload.
    pub framing: Framing,
    /// Bytes of the largest packet: larger payloads are cut. 0: none are.
    pub fragment: usize,
}

impl Shape {
    fn of<T: Transport>(peer: &Peer<T>) -> Shape {
        Shape { peer_id: peer.header(0).peer_id, layout: peer.layout(), framing: peer.framing, fragment: peer.fragment }
    }

    /// Bytes in front of a frame.
    #[inline]
    pub fn front(&self) -> usize {
        self.layout.front + self.header() + self.framing.front()
    }

    /// Bytes of the header that says whether a payload was cut.
    #[inline]
    pub fn header(&self) -> usize {
        if self.fragment > 0 {
            FRAGMENT_HEADER
        } else {
            0
        }
    }

    /// The most bytes of a framed frame in one packet.
    #[inline]
    pub fn most(&self) -> usize {
        match self.fragment {
            0 => usize::MAX,
            most => self.layout.fit(most).saturating_sub(FRAGMENT_HEADER),
        }
    }

    /// Bytes of the packet for a frame that is not cut, at most.
    #[inline]
    pub fn sealed_most(&self, frame: usize) -> usize {
        self.layout.sealed(frame + self.framing.most() + self.header())
    }
}

/// A waiting frame.
#[derive(Debug, Clone, Copy)]
pub struct PendingFrame {
    /// Where it lies.
    pub place: Place,
    /// None: it is no frame.
    pub kind: Option<FrameKind>,
    /// Offset of the frame; with `Place::Here`, of the room for its header.
    pub at: usize,
    /// Bytes of the frame; with `Place::Here`, of the payload: what stands around the frame is part of it.
    pub length: usize,
    /// Bytes of the frame, for the counters.
    pub frame: usize,
    /// Traffic class of the outer IP header; 0: none.
    pub class: u8,
    peer: usize,
    next: usize,
}

/// A peer with waiting frames.
pub struct PendingPeer<T: Transport> {
    /// Who.
    pub peer: Arc<Peer<T>>,
    /// How its frames are packed.
    pub shape: Shape,
    /// How much waits.
    pub count: usize,
    first: usize,
    last: usize,
    place: usize,
}

/// See the module.
pub struct PendingFrames<T: Transport> {
    waiting: Vec<PendingFrame>,
    peers: Vec<PendingPeer<T>>,
    /// By port: number of the peer, from 1; 0: free.
    table: Box<[u16]>,
    current: usize,
    class: u8,
    /// What was taken out.
    kept: Vec<PendingFrame>,
}

/// Frames that were taken out of the queue.
pub struct Tail<T: Transport> {
    peer: Arc<Peer<T>>,
    shape: Shape,
    /// Where they begin in the buffer.
    pub start: usize,
}

impl<T: Transport> PendingFrames<T> {
    /// An empty one.
    pub fn new() -> PendingFrames<T> {
        PendingFrames {
            waiting: Vec::with_capacity(2048),
            peers: Vec::with_capacity(64),
            table: vec![0; PLACES].into_boxed_slice(),
            current: 0,
            class: 0,
            kept: Vec::with_capacity(64),
        }
    }

    /// Whether one more frame may wait, for any peer.
    #[inline]
    pub fn has_room(&self) -> bool {
        self.peers.len() < QUEUE_PEERS && self.waiting.len() < QUEUE_FRAMES
    }

    /// What comes from now on has this traffic class.
    #[inline]
    pub fn set_class(&mut self, class: u8) {
        self.class = class;
    }

    /// What comes next is for this peer.
    #[inline]
    pub fn find(&mut self, peer: &Arc<Peer<T>>) -> Shape {
        match self.peers.get(self.current) {
            Some(current) if Arc::ptr_eq(&current.peer, peer) => current.shape,
            _ => self.look_up(peer),
        }
    }

    fn look_up(&mut self, peer: &Arc<Peer<T>>) -> Shape {
        let mut place = peer.port as usize % PLACES;
        loop {
            let number = usize::from(self.table[place]);
            if number == 0 {
                break;
            }
            if Arc::ptr_eq(&self.peers[number - 1].peer, peer) {
                self.current = number - 1;
                return self.peers[self.current].shape;
            }
            place = (place + 1) % PLACES;
        }
        let shape = Shape::of(peer);
        self.enter(Arc::clone(peer), shape, place);
        shape
    }

    fn enter(&mut self, peer: Arc<Peer<T>>, shape: Shape, place: usize) {
        self.current = self.peers.len();
        self.peers.push(PendingPeer { peer, shape, count: 0, first: NONE, last: NONE, place });
        self.table[place] = self.peers.len() as u16;
    }

    /// The peer that `find` found last.
    #[inline]
    pub fn found(&self) -> Option<&PendingPeer<T>> {
        self.peers.get(self.current)
    }

    /// A frame for the peer that `find` found last.
    #[inline]
    pub fn push(&mut self, place: Place, kind: Option<FrameKind>, at: usize, length: usize, frame: usize) {
        let index = self.waiting.len();
        let Some(waiter) = self.peers.get_mut(self.current) else { return };
        let before = std::mem::replace(&mut waiter.last, index);
        waiter.count += 1;
        match self.waiting.get_mut(before) {
            Some(before) => before.next = index,
            None => waiter.first = index,
        }
        let (class, peer) = (self.class, self.current);
        self.waiting.push(PendingFrame { place, kind, at, length, frame, class, peer, next: NONE });
    }

    /// All peers that something waits for, in the order of what came first for each.
    pub fn peers(&self) -> &[PendingPeer<T>] {
        &self.peers
    }

    /// What waits for one of them, in order.
    pub fn of<'a>(&'a self, waiter: &PendingPeer<T>) -> impl Iterator<Item = &'a PendingFrame> + use<'a, T> {
        let mut at = waiter.first;
        std::iter::from_fn(move || {
            let waiting = self.waiting.get(at)?;
            at = waiting.next;
            Some(waiting)
        })
    }

    /// The newest frames as far as they are for one peer and lie in the buffer one behind the other; whose they are.
    pub fn tail(&self) -> Option<(&PendingPeer<T>, &[PendingFrame])> {
        let newest = self.waiting.last()?;
        let is_part = |waiting: &PendingFrame| waiting.peer == newest.peer && waiting.place == Place::Here;
        let begin = self.waiting.iter().rposition(|waiting| !is_part(waiting)).map_or(0, |before| before + 1);
        Some((self.peers.get(newest.peer)?, &self.waiting[begin..]))
    }

    /// Take the newest `count` frames of `tail` out, for [`begin_with`](Self::begin_with).
    pub fn split_tail(&mut self, count: usize) -> Option<Tail<T>> {
        let begin = self.waiting.len().saturating_sub(count);
        let newest = self.waiting.last().filter(|_| count > 0)?;
        let number = newest.peer;
        let before = self.waiting[..begin].iter().rposition(|waiting| waiting.peer == number);
        self.kept.extend(self.waiting.drain(begin..));
        let waiter = self.peers.get_mut(number)?;
        waiter.count -= count;
        waiter.last = before.unwrap_or(NONE);
        match before {
            Some(before) => self.waiting[before].next = NONE,
            None => waiter.first = NONE,
        }
        let peer = Arc::clone(&waiter.peer);
        Some(Tail { peer, shape: waiter.shape, start: self.kept.first()?.at })
    }

    /// Into an empty queue: what `split_tail` took out, moved to the start of the buffer.
    pub fn begin_with(&mut self, tail: Tail<T>) {
        let place = tail.peer.port as usize % PLACES;
        // Its header's room is what it was, even if the peer's id on the wire is another one by now.
        self.enter(tail.peer, tail.shape, place);
        let mut kept = std::mem::take(&mut self.kept);
        let class = self.class;
        for waiting in kept.drain(..) {
            self.class = waiting.class;
            self.push(waiting.place, waiting.kind, waiting.at - tail.start, waiting.length, waiting.frame);
        }
        self.class = class;
        self.kept = kept;
    }

    /// Nothing waits any more.
    pub fn clear(&mut self) {
        for waiter in self.peers.drain(..) {
            self.table[waiter.place] = 0;
        }
        self.waiting.clear();
        self.current = 0;
    }
}

#[cfg(test)]
#[path = "pending_tests.rs"]
mod tests;
