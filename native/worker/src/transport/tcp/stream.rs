//! One TCP connection: what waits to be sent, bounded, and what has come of a packet so far.
//!
//! Source: docs/protocol/data.md#2-1. No call waits for the far end.

use std::collections::VecDeque;
use std::io::{IoSlice, Result};
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::Arc;

use bridged_core::Nanos;
use bridged_sys::epoll::Epoll;
use bridged_sys::stream::{StreamSocket, MAX_PIECES};
use bridged_sys::EAGAIN;

use crate::contract::{
    Endpoint, StreamEnd, STREAM_CONTROL_OCTETS, STREAM_GROWN_OCTETS, STREAM_PACKET_OCTETS, STREAM_QUEUE_OCTETS,
    STREAM_STRANGER_OCTETS,
};
use crate::sync::{lock, Mutex};
use crate::transport::seam::{Packet, LONGEST_PACKET};
use crate::transport::tcp::framing::PREFIX_OCTETS;

/// What the kernel takes beyond what is on its way: more would only wait there, where nothing can be dropped.
const NOT_SENT_OCTETS: u32 = 128 * 1024;
/// Bytes of room that a stream keeps for what may wait.
const KEPT_OCTETS: usize = 64 * 1024;
/// Packets of one system call: each takes two pieces.
const PACKETS_PER_SEND: usize = MAX_PIECES / 2;

/// See the module.
#[derive(Debug)]
pub struct Stream {
    /// The far end.
    pub endpoint: Endpoint,
    /// Its number in the set of its worker.
    pub token: u64,
    /// Who reads it.
    pub worker: usize,
    socket: StreamSocket,
    /// What tells its worker that it is ready.
    epoll: Arc<Epoll>,
    out: Mutex<Outbox>,
    /// Bytes that wait, for those who do not hold the lock.
    waiting: AtomicUsize,
    /// The beginning of a packet; only its worker reads.
    pub rest: Mutex<Vec<u8>>,
    /// Bytes of the longest packet that it may send; less than any for a stranger.
    packet_octets: AtomicUsize,
}

#[derive(Debug)]
struct Outbox {
    waiting: VecDeque<u8>,
    state: State,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Open,
    /// It closes when all that waits has been sent, or then.
    Closing(Nanos),
    Over(StreamEnd),
}

impl Stream {
    /// Through a descriptor of our own; `rest` was read already. `known_by`: its number, its worker, and bytes of the
    /// longest packet until `welcome`.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn adopt(
        descriptor: RawFd,
        endpoint: Endpoint,
        rest: &[u8],
        known_by: (u64, usize, usize),
        epoll: Arc<Epoll>,
    ) -> Result<Stream> {
        let (token, worker, packet_octets) = known_by;
        let socket = StreamSocket::adopt(descriptor, NOT_SENT_OCTETS)?;
        epoll.add(socket.as_raw_fd(), token)?;
        Ok(Stream {
            endpoint,
            token,
            worker,
            socket,
            epoll,
            out: Mutex::new(Outbox { waiting: VecDeque::new(), state: State::Open }),
            waiting: AtomicUsize::new(0),
            rest: Mutex::new(rest.to_vec()),
            packet_octets: AtomicUsize::new(packet_octets),
        })
    }

    /// Bytes of the longest packet that the far end may send.
    #[inline]
    pub fn packet_octets(&self) -> usize {
        self.packet_octets.load(Relaxed)
    }

    /// A peer is there: it may send long packets, and the kernel finds out how much room it needs.
    pub fn welcome(&self) {
        if self.packet_octets.swap(STREAM_PACKET_OCTETS, Relaxed) < STREAM_PACKET_OCTETS {
            self.socket.grow(STREAM_GROWN_OCTETS);
        }
    }

    /// Bytes of packets and their lengths that there is room for.
    #[inline]
    pub fn room(&self) -> usize {
        STREAM_QUEUE_OCTETS.saturating_sub(self.waiting.load(Relaxed))
    }

    /// Take sealed packets of `arena`, all of them; false: it is over, or about to close. It is over where a packet is
    /// longer than its length can say: nothing behind it could be told apart.
    pub fn send(&self, arena: &[u8], packets: &[Packet]) -> bool {
        let mut out = lock(&self.out);
        if out.state != State::Open {
            return false;
        }
        if packets.iter().any(|packet| packet.length > LONGEST_PACKET) {
            self.end(&mut out, StreamEnd::Overflow);
            return false;
        }
        let mut rest = packets;
        // Bytes at the beginning of `rest` that have left.
        let mut sent = 0;
        while out.waiting.is_empty() && sent == 0 && !rest.is_empty() {
            let (part, behind) = rest.split_at(rest.len().min(PACKETS_PER_SEND));
            match self.send_now(arena, part, &mut out) {
                None => rest = behind,
                Some(taken) if taken > 0 => sent = taken,
                Some(_) => break,
            }
        }
        for packet in rest {
            let prefix = (packet.length as u16).to_be_bytes();
            for piece in [&prefix[..], &arena[packet.start..packet.start + packet.length]] {
                let gone = sent.min(piece.len());
                sent -= gone;
                out.waiting.extend(&piece[gone..]);
            }
        }
        self.settle(&mut out);
        true
    }

    /// Take a control packet; where far too many wait, the stream is over.
    pub fn send_control(&self, packet: &[u8]) -> bool {
        let is_stranger = self.packet_octets() < STREAM_PACKET_OCTETS;
        let most = if is_stranger { STREAM_STRANGER_OCTETS } else { STREAM_QUEUE_OCTETS + STREAM_CONTROL_OCTETS };
        if self.waiting.load(Relaxed) > most {
            self.break_off(StreamEnd::Overflow);
            return false;
        }
        self.send(packet, &[Packet { start: 0, length: packet.len(), class: 0 }])
    }

    /// The socket takes more.
    pub fn flush(&self) {
        let mut out = lock(&self.out);
        loop {
            let (first, second) = out.waiting.as_slices();
            if first.is_empty() {
                break;
            }
            match self.socket.send(&[IoSlice::new(first), IoSlice::new(second)]) {
                Ok(sent) => drop(out.waiting.drain(..sent)),
                Err(EAGAIN) => break,
                Err(_) => {
                    self.end(&mut out, StreamEnd::Reset);
                    break;
                }
            }
        }
        self.settle(&mut out);
    }

    /// Read once into `buffer`; how many bytes. None: nothing waits.
    pub fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        match self.socket.receive(buffer) {
            Ok(0) => self.break_off(StreamEnd::Closed),
            Ok(count) => return Some(count),
            Err(EAGAIN) => {}
            Err(_) => self.break_off(StreamEnd::Reset),
        }
        None
    }

    /// It is over. Its worker hears of that by reading.
    pub fn break_off(&self, reason: StreamEnd) {
        self.end(&mut lock(&self.out), reason);
    }

    /// Close when all that waits has been sent, at `deadline` at the latest.
    pub fn close_by(&self, deadline: Nanos) {
        let mut out = lock(&self.out);
        if out.state == State::Open {
            out.state = State::Closing(deadline);
            if out.waiting.is_empty() {
                self.socket.finish();
            }
        }
    }

    /// Why it is over; None: it is not.
    pub fn ended(&self) -> Option<StreamEnd> {
        match lock(&self.out).state {
            State::Over(reason) => Some(reason),
            _ => None,
        }
    }

    /// What arrives is not read any more.
    pub fn is_closing(&self) -> bool {
        lock(&self.out).state != State::Open
    }

    /// It has taken too long to close.
    pub fn is_overdue(&self, now: Nanos) -> bool {
        match lock(&self.out).state {
            State::Open => false,
            State::Closing(deadline) => now >= deadline,
            State::Over(_) => true,
        }
    }

    /// Nobody waits for it any more.
    pub fn forget(&self) {
        self.epoll.remove(self.socket.as_raw_fd());
        self.break_off(StreamEnd::Closed);
    }

    /// Send packets in one call; None: all of them, else how many bytes.
    fn send_now(&self, arena: &[u8], packets: &[Packet], out: &mut Outbox) -> Option<usize> {
        let mut prefixes = [[0; PREFIX_OCTETS]; PACKETS_PER_SEND];
        let mut total = 0;
        for (prefix, packet) in prefixes.iter_mut().zip(packets) {
            *prefix = (packet.length as u16).to_be_bytes();
            total += PREFIX_OCTETS + packet.length;
        }
        let mut pieces = [IoSlice::new(&[]); MAX_PIECES];
        for ((pair, prefix), packet) in pieces.chunks_exact_mut(2).zip(&prefixes).zip(packets) {
            pair[0] = IoSlice::new(prefix);
            pair[1] = IoSlice::new(&arena[packet.start..packet.start + packet.length]);
        }
        match self.socket.send(&pieces[..2 * packets.len()]) {
            Ok(sent) => (sent < total).then_some(sent),
            Err(number) => {
                if number != EAGAIN {
                    self.end(out, StreamEnd::Reset);
                }
                Some(0)
            }
        }
    }

    fn end(&self, out: &mut Outbox, reason: StreamEnd) {
        if !matches!(out.state, State::Over(_)) {
            out.state = State::Over(reason);
            self.socket.break_off();
        }
        out.waiting = VecDeque::new();
        self.waiting.store(0, Relaxed);
    }

    /// What waits has changed.
    fn settle(&self, out: &mut Outbox) {
        if matches!(out.state, State::Over(_)) {
            out.waiting = VecDeque::new();
        }
        let before = self.waiting.swap(out.waiting.len(), Relaxed);
        if (before == 0) != out.waiting.is_empty() {
            // It can only fail where the stream was removed from the set: then nobody waits for it.
            let _ = self.epoll.change(self.socket.as_raw_fd(), self.token, !out.waiting.is_empty());
        }
        if out.waiting.is_empty() {
            if out.waiting.capacity() > KEPT_OCTETS {
                // Who was slow once needs it no more.
                out.waiting = VecDeque::new();
            }
            if matches!(out.state, State::Closing(_)) {
                self.socket.finish();
            }
        }
    }
}
