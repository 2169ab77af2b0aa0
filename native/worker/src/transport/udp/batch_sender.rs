//! Sealed packets on their way out over UDP: equal ones together (UDP_SEGMENT), different ones in one call (sendmmsg),
//! and what to try where the kernel refuses.
//!
//! Source: sendmmsg(2), udp(7), UDP_SEGMENT, ip(7), IP_MTU_DISCOVER.

use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::atomic::Ordering::Relaxed;

use bridged_core::{Nanos, SECOND};
use bridged_sys::descriptor::wait_writable;
use bridged_sys::send::{DatagramSender, Outgoing, MAX_BATCH_OCTETS, MAX_SEGMENTS};
use bridged_sys::thread::now;
use bridged_sys::udp::UdpSocket;
use bridged_sys::{Errno, EAGAIN, EINVAL, EIO, EMSGSIZE};

use crate::contract::Direction::Transmit;
use crate::control::counters::{Count, Counters, Reason};
use crate::control::names::BatchName;
use crate::sync::{lock, ArcSwap};
use crate::transport::mixed_path::MixedPath;
use crate::transport::seam::{Packet, Taken};
use crate::transport::udp::path::UdpPath;
use crate::transport::udp::send_failure::{drop_reason, may_be_pinned_source};
use crate::transport::udp::sockets::{UdpLink, UdpTransport};

/// What sending takes, the same for all packets of one turn.
pub struct UdpContext<'a> {
    pub transport: &'a UdpTransport,
    pub link: &'a UdpLink,
    pub counters: &'a Counters,
    pub now: Nanos,
}

/// After a failed UDP_SEGMENT send, send segments of that size singly for this long.
const SEGMENT_RETRY: Nanos = 30 * SECOND;
/// For a full socket, in all that one call sends: others wait for the send locks that it holds.
const SEND_WAIT: Nanos = 5_000_000;
const MTU_PAUSE: Nanos = SECOND;

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

/// See the module.
pub struct UdpBatchSender {
    /// Its owner's place in the counters.
    thread: usize,
    sender: DatagramSender,
    messages: Vec<Outgoing>,
    /// By message: the number of its peer.
    owners: Vec<usize>,
    /// By number of peer.
    taken: Vec<Taken>,
    wait_budget: WaitBudget,
}

impl UdpBatchSender {
    /// See [`BatchSender`](crate::transport::seam::BatchSender); so the others.
    pub fn new(thread: usize) -> UdpBatchSender {
        UdpBatchSender {
            thread,
            sender: DatagramSender::new(),
            messages: Vec::with_capacity(64),
            owners: Vec::with_capacity(64),
            taken: Vec::with_capacity(64),
            wait_budget: WaitBudget(SEND_WAIT),
        }
    }

    pub fn clear(&mut self) {
        self.messages.clear();
        self.owners.clear();
        self.taken.clear();
    }

    pub fn add(&mut self, packets: &[Packet], path: &UdpPath, context: &UdpContext<'_>) -> usize {
        let owner = self.taken.len();
        self.taken.push(Taken::default());
        let Some(socket) = context.link.any() else {
            context.counters.count_drops(Transmit, Reason::Unreachable, packets.len() as u64, None);
            return owner;
        };
        if path.segment_limit.load(Relaxed) != usize::MAX && context.now >= path.retry_at.load(Relaxed) {
            path.segment_limit.store(usize::MAX, Relaxed);
        }
        let limit = segment_limit(context.transport, path, socket);
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
                context.counters.threads[self.thread].count(Count::IpFragmentSent, large as u64);
            }
        }
        owner
    }

    pub fn send<'a>(
        &mut self,
        arena: &[u8],
        context: &UdpContext<'_>,
        path_of: impl Fn(usize) -> &'a ArcSwap<MixedPath>,
    ) {
        let Some(socket) = context.link.any() else { return };
        self.wait_budget = WaitBudget(SEND_WAIT);
        let mut at = 0;
        while at < self.messages.len() {
            let (sent, number) = self.sender.send_many(socket, arena, &self.messages[at..]);
            for (message, owner) in self.messages[at..at + sent].iter().zip(&self.owners[at..]) {
                add(&mut self.taken[*owner], taken_of(message));
                context.counters.threads[self.thread].sizes(BatchName::SegmentsPerSend).observe(datagrams(message), 1);
            }
            at += sent;
            if number != 0 && at < self.messages.len() {
                let pending = PendingSend { message: self.messages[at], owner: self.owners[at] };
                let slot = path_of(pending.owner);
                let taken = self.send_failed(arena, pending, number, socket, slot, context);
                add(&mut self.taken[pending.owner], taken);
                at += 1;
                // What was just learned of its path holds for what follows as well.
                let limit = slot.load().udp().map_or(0, |path| path.segment_limit.load(Relaxed));
                while self.owners.get(at) == Some(&pending.owner) && self.messages[at].segment > limit {
                    let taken = self.send_singly(arena, self.messages[at], socket, context);
                    add(&mut self.taken[pending.owner], taken);
                    at += 1;
                }
            }
        }
    }

    /// A peer whose packets somebody else sends; its number.
    pub fn add_other(&mut self) -> usize {
        self.taken.push(Taken::default());
        self.taken.len() - 1
    }

    /// What somebody else has sent of a peer's packets.
    pub fn take(&mut self, number: usize, taken: Taken) {
        self.taken[number] = taken;
    }

    pub fn taken(&self, number: usize) -> Taken {
        self.taken[number]
    }

    pub fn open_end(&self, lengths: impl Iterator<Item = usize>, path: &UdpPath, context: &UdpContext<'_>) -> usize {
        let limit = context.link.any().map_or(0, |socket| segment_limit(context.transport, path, socket));
        open_end(lengths, limit)
    }

    pub fn send_control(
        &mut self,
        packet: &[u8],
        endpoint: SocketAddr,
        context: &UdpContext<'_>,
    ) -> Result<(), Reason> {
        let socket = context.link.any().ok_or(Reason::Unreachable)?;
        let (destination, pin) = context.transport.address_of(&endpoint).map_err(drop_reason)?;
        // Another hop limit than that of data: no receiving kernel joins the two to one read (UDP_GRO), which would
        // take the data to the socket of the control packet, past what its peer's worker has.
        let hops = socket.other_hops(destination.is_ipv4());
        let message = Outgoing { start: 0, length: packet.len(), segment: 0, destination, pin, class: 0, hops };
        let mut number = self.sender.send(socket, packet, &message).err();
        if number == Some(EAGAIN) && wait_writable(socket.as_fd(), SEND_WAIT) {
            number = self.sender.send(socket, packet, &message).err();
        }
        if pin.is_some() && number.is_some_and(may_be_pinned_source) {
            let unpinned = Outgoing { pin: None, ..message };
            let again = self.sender.send(socket, packet, &unpinned).err();
            if again != number {
                lock(&context.transport.pinned_sources).forget(&endpoint);
                number = again;
            }
        }
        match number {
            None => {
                context.counters.threads[self.thread].sizes(BatchName::SegmentsPerSend).observe(1, 1);
                Ok(())
            }
            Some(number) => Err(drop_reason(number)),
        }
    }
}

impl UdpBatchSender {
    /// A message was refused: try what may help. What the socket took in the end.
    #[cold]
    fn send_failed(
        &mut self,
        arena: &[u8],
        pending: PendingSend,
        mut number: Errno,
        socket: &UdpSocket,
        slot: &ArcSwap<MixedPath>,
        context: &UdpContext<'_>,
    ) -> Taken {
        let mut message = pending.message;
        if number == EAGAIN && self.wait_budget.wait(socket.as_fd()) {
            number = self.sender.send(socket, arena, &message).err().unwrap_or(0);
        }
        if message.pin.is_some() && may_be_pinned_source(number) {
            let unpinned = Outgoing { pin: None, ..message };
            let again = self.sender.send(socket, arena, &unpinned).err().unwrap_or(0);
            if again != number {
                context.transport.unpin(slot);
                message = unpinned;
                number = again;
                for (later, owner) in self.messages.iter_mut().zip(&self.owners) {
                    if *owner == pending.owner {
                        later.pin = None;
                    }
                }
            }
        }
        let cells = &context.counters.threads[self.thread];
        if number == 0 {
            cells.sizes(BatchName::SegmentsPerSend).observe(datagrams(&message), 1);
            return taken_of(&message);
        }
        let cause = [EIO, EINVAL, EMSGSIZE].iter().position(|cause| *cause == number);
        let Some(cause) = cause.filter(|_| message.segment > 0) else {
            context.counters.count_drops(Transmit, drop_reason(number), datagrams(&message) as u64, None);
            return Taken::default();
        };
        cells.segment_fallbacks[cause].add(1);
        let path = slot.load();
        let Some(path) = path.udp() else { return Taken::default() };
        // What has no segmentation at all says EIO; else it was too large (EINVAL on older kernels).
        path.segment_limit.fetch_min(if number == EIO { 0 } else { message.segment - 1 }, Relaxed);
        path.retry_at.store(context.now + SEGMENT_RETRY, Relaxed);
        let may_ask = number == EMSGSIZE && path.was_asked_before(context.now, MTU_PAUSE);
        if may_ask && context.transport.refresh_mtu(path, context.now) {
            cells.count(Count::PathMtuChanged, 1);
        }
        self.send_singly(arena, message, socket, context)
    }

    fn send_singly(&mut self, arena: &[u8], message: Outgoing, socket: &UdpSocket, context: &UdpContext<'_>) -> Taken {
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
                    add(&mut taken, Taken { packets: 1, octets: length });
                    context.counters.threads[self.thread].sizes(BatchName::SegmentsPerSend).observe(1, 1);
                }
                Err(number) => context.counters.count_drops(Transmit, drop_reason(number), 1, None),
            }
            at += length;
        }
        taken
    }
}

fn taken_of(message: &Outgoing) -> Taken {
    Taken { packets: datagrams(message), octets: message.length }
}

fn add(sum: &mut Taken, more: Taken) {
    sum.packets += more.packets;
    sum.octets += more.octets;
}

/// The largest datagram that may be part of a UDP_SEGMENT send. A configured MTU is that of the whole path:
/// only that of the link, which is larger then, keeps the kernel from cutting segments.
fn segment_limit(transport: &UdpTransport, path: &UdpPath, socket: &UdpSocket) -> usize {
    if !socket.has_segment() {
        return 0;
    }
    let limit = path.segment_limit.load(Relaxed);
    match transport.configured_mtu() {
        0 => limit.min(path.fitting.load(Relaxed)),
        _ => limit,
    }
}

/// Datagrams of a size that one send takes.
fn most_segments(size: usize) -> usize {
    MAX_SEGMENTS.min((MAX_BATCH_OCTETS / size).max(1))
}

/// How many of the packets, from the first on, go in one send: equal ones of one class that lie end to end, and a
/// shorter one behind them.
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
fn open_end(lengths: impl Iterator<Item = usize>, limit: usize) -> usize {
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

#[cfg(test)]
#[path = "batch_sender_tests.rs"]
mod tests;
