//! The seam between moving frames and what carries their packets.
//!
//! Forwarding, batching and receiving are generic over [`Transport`]: the compiler builds them for each transport, and
//! no call is dynamic. A peer is known by its handle and its keys. Its path says only where its packets go, and is
//! replaced when the peer moves.

use std::os::fd::RawFd;
use std::sync::Arc;

use bridged_core::Nanos;
use bridged_sys::Errno;

use crate::contract::Endpoint;
use crate::control::counters::{Counters, Reason};
use crate::control::events::EventQueue;
use crate::sync::ArcSwap;

/// Bytes that a packet takes beyond itself, at most (see `PeerPath::room`).
pub const PACKET_OCTETS: usize = 2;
/// Bytes of the longest packet where `PeerPath::room` is limited: PACKET_OCTETS say how long it is.
pub const LONGEST_PACKET: usize = u16::MAX as usize;

/// What carries sealed packets to peers, and theirs to us.
pub trait Transport: Send + Sync + Sized + 'static {
    /// The path to one peer.
    type Path: PeerPath;
    /// Where a packet came from, and what an answer needs.
    type Origin: Origin;
    /// A worker's hold on what it sends and receives through, for one turn.
    type Link: Link;
    /// Sends for one thread.
    type Sender: BatchSender<Self>;
    /// Receives for one thread.
    type Receiver: BatchReceiver<Self>;

    /// What a worker sends and receives through now.
    fn link(&self, worker: usize) -> Self::Link;

    /// The path to an endpoint.
    ///
    /// # Errors
    /// EAFNOSUPPORT: it cannot be reached from here; ENOTCONN: there is no connection to it.
    fn path_to(&self, endpoint: Endpoint, now: Nanos) -> Result<Self::Path, Errno>;

    /// The path of a peer that moved to where a packet came from; `before`: the path it had.
    ///
    /// # Errors
    /// EAFNOSUPPORT: it cannot be reached from here.
    fn path_from(&self, origin: &Self::Origin, before: &Self::Path, now: Nanos) -> Result<Self::Path, Errno>;

    /// Send to a peer that did not move from the address that its newest packet was sent to; `path` is what `slot`
    /// held.
    fn answer_along(&self, slot: &ArcSwap<Self::Path>, path: &Arc<Self::Path>, origin: &Self::Origin);

    /// Answer control packets of this origin from the address that they were sent to.
    fn remember(&self, origin: &Self::Origin);

    /// Ask for the MTU of a path again; whether it changed.
    fn refresh_mtu(&self, path: &Self::Path, now: Nanos) -> bool;

    /// Once a second: end what took too long.
    fn tend(&self, now: Nanos);

    /// Its counters and abilities now.
    fn figures(&self) -> TransportFigures;
}

/// The path to one peer.
pub trait PeerPath: std::fmt::Debug + Send + Sync + 'static {
    /// Where the peer is.
    fn endpoint(&self) -> Endpoint;

    /// Bytes of the largest packet that crosses in one piece; `usize::MAX`: not known, or any.
    fn fitting(&self) -> usize;

    /// It is time to ask for its MTU again.
    fn mtu_is_due(&self, now: Nanos) -> bool;

    /// Bytes that it takes now, packets and what stands around each (PACKET_OCTETS); `usize::MAX`: the socket decides.
    /// What is beyond is not sealed: a far end that wants packet ids without a gap would miss it.
    fn room(&self) -> usize;

    /// Packets arrive in order or not at all.
    fn keeps_order(&self) -> bool;
}

/// Where a packet came from.
pub trait Origin: Copy + Send + 'static {
    /// The sender's endpoint.
    fn endpoint(&self) -> &Endpoint;
}

/// What a worker sends and receives through.
pub trait Link {
    /// The descriptors to wait on until something arrives.
    fn readable(&self) -> [Option<RawFd>; 2];

    /// The descriptor to wait on until there is room to send, or None.
    fn writable(&self) -> Option<RawFd>;

    /// Less than half of the send buffer is in use; also where there is nothing to send through.
    fn has_room(&self) -> bool;
}

/// What sending takes, the same for all packets of one turn.
pub struct SendContext<'a, T: Transport> {
    pub transport: &'a T,
    pub link: &'a T::Link,
    pub counters: &'a Counters,
    pub events: &'a EventQueue,
    pub now: Nanos,
}

/// Where a sealed packet lies in its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Offset.
    pub start: usize,
    /// Bytes.
    pub length: usize,
    /// Traffic class of the outer IP header; 0: none.
    pub class: u8,
}

/// What the transport took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub packets: usize,
    pub octets: usize,
}

/// Sends the packets of some peers in as few calls as it can: `clear`, `add` for each peer, `send`, `taken` for each.
pub trait BatchSender<T: Transport>: Send {
    /// One that counts in the cells of `thread`.
    fn new(thread: usize) -> Self;

    /// Start again with nothing to send.
    fn clear(&mut self);

    /// Queue one peer's packets in their order; the peer's number, counted from 0.
    fn add(&mut self, packets: &[Packet], path: &T::Path, context: &SendContext<'_, T>) -> usize;

    /// Send all that was added, which lies in `arena`; `path_of` gives the present path of a peer by number.
    fn send<'a>(&mut self, arena: &[u8], context: &SendContext<'_, T>, path_of: impl Fn(usize) -> &'a ArcSwap<T::Path>);

    /// What was taken of a peer's packets.
    fn taken(&self, number: usize) -> Taken;

    /// How many packets at the end of these lengths more of the same could join to one larger send.
    fn open_end(&self, lengths: impl Iterator<Item = usize>, path: &T::Path, context: &SendContext<'_, T>) -> usize;

    /// Send one control packet as it is.
    ///
    /// # Errors
    /// The drop reason.
    fn send_control(&mut self, packet: &[u8], endpoint: Endpoint, context: &SendContext<'_, T>) -> Result<(), Reason>;
}

/// Packets of one origin that arrived together: `segment` bytes each (the last may be shorter), from `start` of the
/// receiver's bytes on, with `gap` bytes between two of them. `length`: from the first byte to the last.
#[derive(Debug, Clone, Copy)]
pub struct Arrival<O> {
    pub origin: O,
    pub start: usize,
    pub length: usize,
    pub segment: usize,
    pub gap: usize,
}

/// Receives for one thread, and answers strangers in the same turn.
pub trait BatchReceiver<T: Transport>: Send {
    /// For a worker.
    fn new(worker: usize) -> Self;

    /// Read what waits, without blocking; how many arrivals.
    ///
    /// What ends by itself is reported to `events`.
    ///
    /// # Errors
    /// EAGAIN: nothing waits. Anything else concerns an earlier packet.
    fn receive(&mut self, link: &T::Link, transport: &T, events: &EventQueue) -> Result<usize, Errno>;

    /// An arrival of the last `receive`; ask for each once. None: nobody knows where it came from.
    fn arrival(&mut self, index: usize, transport: &T) -> Option<Arrival<T::Origin>>;

    /// The bytes of all arrivals; 64 behind the end of each may be overwritten.
    fn octets(&mut self) -> &mut [u8];

    /// Enough arrived that more probably waits.
    fn expects_more(&self) -> bool;

    /// Queue an answer to a stranger.
    fn reply(&mut self, packet: &[u8], to: &T::Origin, transport: &T);

    /// Send the answers. What is not taken is counted: its receiver asks again.
    fn send_replies(&mut self, link: &T::Link, counters: &Counters);
}

/// See [`Transport::figures`].
#[derive(Debug, Clone, Default)]
pub struct TransportFigures {
    /// It cuts runs of packets itself (UDP_SEGMENT).
    pub has_segment: bool,
    /// It joins packets on arrival (UDP_GRO).
    pub has_gro: bool,
    /// Each peer's packets come to one of several sockets, chosen by its id.
    pub is_steered: bool,
    /// What it could not get: segment, GRO, steering; how often.
    pub missing: [u64; 3],
    /// Packets that the kernel dropped before they could be read.
    pub receive_overflow: u64,
}
