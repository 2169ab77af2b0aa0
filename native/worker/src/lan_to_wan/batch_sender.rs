//! Sealed packets on their way out: equal ones together (UDP_SEGMENT), different ones in one call (sendmmsg), and what to try
//! where the kernel refuses.
//!
//! Source: sendmmsg(2), udp(7), UDP_SEGMENT, ip(7), IP_MTU_DISCOVER.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::Arc;

use bridged_core::{Nanos, SECOND};
use bridged_sys::descriptor::wait_writable;
use bridged_sys::send::{Outgoing, Sender, MAX_BATCH_OCTETS, MAX_SEGMENTS};
use bridged_sys::thread::now;
use bridged_sys::udp::UdpSocket;
use bridged_sys::{Errno, EADDRNOTAVAIL, EAGAIN, EINVAL, EIO, EMSGSIZE, ENETUNREACH};

use crate::contract::Direction;
use crate::control::counters::Reason;
use crate::shared::{send_failure, Shared};
use crate::sync::lock;
use crate::tables::peers::{Path, Peer};

/// After a failed UDP_SEGMENT send, segments of that size go singly for so long.
const SEGMENT_RETRY: Nanos = 30 * SECOND;
/// For a socket that is full, in all that one call sends: others wait for the turns that it holds.
const SEND_WAIT: Nanos = 5_000_000;
const MTU_PAUSE: Nanos = SECOND;

/// Where a sealed packet lies in its buffer.
#[derive(Debug, Clone, Copy)]
pub struct Packet {
    /// Offset.
    pub start: usize,
    /// Octets.
    pub length: usize,
    /// Traffic class of the outer IP header; 0: none.
    pub class: u8,
}

/// What the socket took.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Taken {
    pub packets: usize,
    pub octets: usize,
}

impl Taken {
    fn of(message: &Outgoing) -> Taken {
        Taken { packets: datagrams(message), octets: message.length }
    }

    fn add(&mut self, other: Taken) {
        self.packets += other.packets;
        self.octets += other.octets;
    }
}

/// A message, and whose it is.
#[derive(Debug, Clone, Copy)]
struct PendingSend {
    message: Outgoing,
    owner: usize,
}

/// The time left to wait for a socket that is full.
#[derive(Debug)]
struct WaitBudget(Nanos);

impl WaitBudget {
    /// Wait until it takes output; false where it does not, at once when no time is left.
    #[cold]
    fn wait(&mut self, descriptor: BorrowedFd<'_>) -> bool {
        if self.0 == 0 {
            return false;
        }
        let began = now();
        let is_writable = wait_writable(descriptor, self.0);
        self.0 = self.0.saturating_sub(now().saturating_sub(began));
        is_writable
    }
}

/// See the module. `cell`: its owner's place among those who count.
pub struct BatchSender {
    cell: usize,
    sender: Sender,
    messages: Vec<Outgoing>,
    /// By message: the number of its peer.
    owners: Vec<usize>,
    /// By number of peer.
    taken: Vec<Taken>,
    wait_budget: WaitBudget,
}

impl BatchSender {
    /// One that has sent nothing.
    pub fn new(cell: usize) -> BatchSender {
        BatchSender {
            cell,
            sender: Sender::new(),
            messages: Vec::with_capacity(64),
            owners: Vec::with_capacity(64),
            taken: Vec::with_capacity(64),
            wait_budget: WaitBudget(SEND_WAIT),
        }
    }

    /// Send one control datagram as it is.
    ///
    /// # Errors
    /// The drop reason.
    pub fn send_plain(
        &mut self,
        shared: &Shared,
        socket: Option<&UdpSocket>,
        datagram: &[u8],
        path: &Path,
    ) -> Result<(), Reason> {
        let socket = socket.ok_or(Reason::Unreachable)?;
        let (destination, pin) = (path.raw, path.pin);
        // Another hop limit than that of data: no receiving kernel joins the two to one read (UDP_GRO), which would take the data
        // to the socket of the control packet, past what its peer's worker has.
        let hops = socket.other_hops(destination.is_ipv4());
        let message = Outgoing { start: 0, length: datagram.len(), segment: 0, destination, pin, class: 0, hops };
        let mut number = self.sender.send(socket, datagram, &message).err();
        if number == Some(EAGAIN) && wait_writable(socket.as_fd(), SEND_WAIT) {
            number = self.sender.send(socket, datagram, &message).err();
        }
        if path.pin.is_some() && number.is_some_and(may_be_pin) {
            let unpinned = Outgoing { pin: None, ..message };
            let again = self.sender.send(socket, datagram, &unpinned).err();
            if again != number {
                lock(&shared.pinned_sources).forget(&path.endpoint);
                number = again;
            }
        }
        match number {
            None => {
                shared.cells[self.cell].segments_per_send.observe(1, 1);
                Ok(())
            }
            Some(number) => Err(send_failure(number)),
        }
    }

    /// Begin anew, with nothing to send.
    pub fn clear(&mut self) {
        self.messages.clear();
        self.owners.clear();
        self.taken.clear();
    }

    /// Have these packets sent to the next peer, in their order: equal ones that lie end to end together, up to what one send
    /// takes. The number of the peer: they are counted from 0.
    pub fn add(
        &mut self,
        packets: &[Packet],
        path: &Path,
        shared: &Shared,
        socket: Option<&UdpSocket>,
        now: Nanos,
    ) -> usize {
        let owner = self.taken.len();
        self.taken.push(Taken::default());
        let Some(socket) = socket else {
            shared.count_drops(Direction::Transmit, Reason::Unreachable, packets.len() as u64, None);
            return owner;
        };
        if path.segment_limit.load(Relaxed) != usize::MAX && now >= path.retry_at.load(Relaxed) {
            path.segment_limit.store(usize::MAX, Relaxed);
        }
        let limit = segment_limit(shared, path, socket);
        let mut at = 0;
        while at < packets.len() {
            let size = packets[at].length;
            let end = at + together(&packets[at..], limit);
            let last = packets[end - 1];
            self.messages.push(Outgoing {
                start: packets[at].start,
                length: last.start + last.length - packets[at].start,
                segment: if end - at > 1 { size } else { 0 },
                destination: path.raw,
                pin: path.pin,
                class: packets[at].class,
                hops: 0,
            });
            self.owners.push(owner);
            at = end;
        }
        let fitting = path.fitting.load(Relaxed);
        if fitting != usize::MAX {
            let large = packets.iter().filter(|packet| packet.length > fitting).count();
            if large > 0 {
                shared.cells[self.cell].ip_fragment_sent.add(large as u64);
            }
        }
        owner
    }

    /// Send all that was added, which lies in `arena`; `peer_of` knows the peers by number.
    pub fn send<'a>(
        &mut self,
        arena: &[u8],
        shared: &Shared,
        socket: &UdpSocket,
        now: Nanos,
        peer_of: impl Fn(usize) -> &'a Arc<Peer>,
    ) {
        self.wait_budget = WaitBudget(SEND_WAIT);
        let mut at = 0;
        while at < self.messages.len() {
            let (sent, number) = self.sender.send_many(socket, arena, &self.messages[at..]);
            for (message, owner) in self.messages[at..at + sent].iter().zip(&self.owners[at..]) {
                self.taken[*owner].add(Taken::of(message));
                shared.cells[self.cell].segments_per_send.observe(datagrams(message), 1);
            }
            at += sent;
            if number != 0 && at < self.messages.len() {
                let pending = PendingSend { message: self.messages[at], owner: self.owners[at] };
                let taken = self.send_failed(arena, pending, number, shared, socket, peer_of(pending.owner), now);
                self.taken[pending.owner].add(taken);
                at += 1;
                // What was just learned of its path holds for what follows as well.
                let limit = peer_of(pending.owner).path.load().segment_limit.load(Relaxed);
                while self.owners.get(at) == Some(&pending.owner) && self.messages[at].segment > limit {
                    let taken = self.send_singly(arena, self.messages[at], shared, socket);
                    self.taken[pending.owner].add(taken);
                    at += 1;
                }
            }
        }
    }

    /// What the socket took of a peer's packets.
    pub fn taken(&self, owner: usize) -> Taken {
        self.taken[owner]
    }

    /// A message was refused: try what may help. What the socket took in the end.
    #[cold]
    #[allow(clippy::too_many_arguments)] // one caller; the parts are borrowed from different owners
    fn send_failed(
        &mut self,
        arena: &[u8],
        pending: PendingSend,
        mut number: Errno,
        shared: &Shared,
        socket: &UdpSocket,
        peer: &Arc<Peer>,
        now: Nanos,
    ) -> Taken {
        let mut message = pending.message;
        if number == EAGAIN && self.wait_budget.wait(socket.as_fd()) {
            number = self.sender.send(socket, arena, &message).err().unwrap_or(0);
        }
        if message.pin.is_some() && may_be_pin(number) {
            let unpinned = Outgoing { pin: None, ..message };
            let again = self.sender.send(socket, arena, &unpinned).err().unwrap_or(0);
            if again != number {
                // The address went away with its link or lease; the kernel chooses another.
                unpin(shared, peer);
                message = unpinned;
                number = again;
                for (later, owner) in self.messages.iter_mut().zip(&self.owners) {
                    if *owner == pending.owner {
                        later.pin = None;
                    }
                }
            }
        }
        let cells = &shared.cells[self.cell];
        if number == 0 {
            cells.segments_per_send.observe(datagrams(&message), 1);
            return Taken::of(&message);
        }
        let cause = [EIO, EINVAL, EMSGSIZE].iter().position(|cause| *cause == number);
        let Some(cause) = cause.filter(|_| message.segment > 0) else {
            shared.count_drops(Direction::Transmit, send_failure(number), datagrams(&message) as u64, None);
            return Taken::default();
        };
        cells.segment_fallbacks[cause].add(1);
        let path = peer.path.load();
        // What has no segmentation at all says EIO; else it was too large (EINVAL on older kernels).
        path.segment_limit.fetch_min(if number == EIO { 0 } else { message.segment - 1 }, Relaxed);
        path.retry_at.store(now + SEGMENT_RETRY, Relaxed);
        if number == EMSGSIZE && shared.refresh_mtu(&path, now, MTU_PAUSE) {
            cells.path_mtu_changed.add(1);
        }
        self.send_singly(arena, message, shared, socket)
    }

    fn send_singly(&mut self, arena: &[u8], message: Outgoing, shared: &Shared, socket: &UdpSocket) -> Taken {
        let mut taken = Taken::default();
        let mut at = message.start;
        let end = message.start + message.length;
        while at < end {
            let length = message.segment.min(end - at);
            let one = Outgoing { start: at, length, segment: 0, ..message };
            let mut result = self.sender.send(socket, arena, &one);
            if result == Err(EAGAIN) && self.wait_budget.wait(socket.as_fd()) {
                result = self.sender.send(socket, arena, &one);
            }
            match result {
                Ok(()) => {
                    taken.add(Taken { packets: 1, octets: length });
                    shared.cells[self.cell].segments_per_send.observe(1, 1);
                }
                Err(number) => shared.count_drops(Direction::Transmit, send_failure(number), 1, None),
            }
            at += length;
        }
        taken
    }
}

/// The largest datagram that may be part of a UDP_SEGMENT send. An MTU that was told is that of the whole way: only that of
/// the link, which is larger then, keeps the kernel from cutting segments.
pub fn segment_limit(shared: &Shared, path: &Path, socket: &UdpSocket) -> usize {
    if !socket.has_segment() {
        return 0;
    }
    let limit = path.segment_limit.load(Relaxed);
    match shared.sizes.wan_mtu.load(Relaxed) {
        0 => limit.min(path.fitting.load(Relaxed)),
        _ => limit,
    }
}

/// Datagrams of a size that one send takes.
fn most_segments(size: usize) -> usize {
    MAX_SEGMENTS.min((MAX_BATCH_OCTETS / size).max(1))
}

/// How many of the packets, from the first on, go in one send: equal ones of one class that lie end to end, and a shorter one
/// behind them.
fn together(packets: &[Packet], limit: usize) -> usize {
    let Some(first) = packets.first() else { return 0 };
    let (size, class) = (first.length, first.class);
    if size > limit {
        return 1;
    }
    let most = packets.len().min(most_segments(size));
    let follows = |end: usize| {
        packets[end].start == packets[end - 1].start + packets[end - 1].length && packets[end].class == class
    };
    let mut end = 1;
    while end < most && packets[end].length == size && follows(end) {
        end += 1;
    }
    if end < most && packets[end].length < size && follows(end) {
        end += 1;
    }
    end
}

/// How many packets at the end are less than one send could take: more of their length can join them. `limit` as in
/// [`segment_limit`].
pub fn open_end(lengths: impl Iterator<Item = usize>, limit: usize) -> usize {
    let (mut size, mut count) = (0, 0);
    for length in lengths {
        if count > 0 && count < most_segments(size) && length <= size {
            // A shorter one closes it.
            count = if length == size { count + 1 } else { 0 };
        } else {
            size = length;
            count = usize::from(length <= limit);
        }
    }
    if count > 0 && count < most_segments(size) {
        count
    } else {
        0
    }
}

fn datagrams(message: &Outgoing) -> usize {
    if message.segment == 0 {
        1
    } else {
        message.length.div_ceil(message.segment)
    }
}

fn may_be_pin(number: Errno) -> bool {
    matches!(number, EINVAL | EADDRNOTAVAIL | ENETUNREACH)
}

fn unpin(shared: &Shared, peer: &Peer) {
    let path = peer.path.load();
    lock(&shared.pinned_sources).forget(&path.endpoint);
    shared.endpoints.repin(peer, &path.endpoint, None);
}

#[cfg(test)]
#[path = "batch_sender_tests.rs"]
mod tests;
