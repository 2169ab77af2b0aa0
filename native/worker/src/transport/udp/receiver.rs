//! Reads datagrams for one thread: as many in one call as seem to wait.
//!
//! Source: recvmmsg(2), udp(7) (UDP_GRO).

use bridged_sys::receive::Receiver;
use bridged_sys::send::{DatagramSender, Outgoing};
use bridged_sys::{Errno, EAGAIN};

use crate::contract::Direction::Transmit;
use crate::control::counters::Counters;
use crate::transport::mixed_path::MixedOrigin;
use crate::transport::seam::Arrival;
use crate::transport::udp::send_failure::drop_reason;
use crate::transport::udp::sockets::{UdpLink, UdpTransport};

/// Reads in one system call, 64 KiB each.
const SLOTS: usize = 64;
/// Reads where that many came and each was one packet: together they make some super-frames.
const SINGLE_SLOTS: usize = 256;
/// Reads to ask for when each is large (more would overflow the CPU cache), or when few arrive (preparing a read costs
/// time). Only these have all their memory from the start.
const FEW_SLOTS: usize = 8;
/// Bytes of a read that is a large one.
const LARGE_OCTETS: usize = 8192;
/// More than one full packet: read again at once.
const MORE_OCTETS: usize = 2000;

/// See the module.
pub struct UdpReceiver {
    worker: usize,
    receiver: Receiver,
    /// Reads to ask for next.
    slots: usize,
    /// What the last call gave.
    count: usize,
    octets: usize,
    are_single: bool,
    replies: Replies,
}

/// Answers of one turn, sent in one call at its end.
struct Replies {
    sender: DatagramSender,
    octets: Vec<u8>,
    messages: Vec<Outgoing>,
}

impl UdpReceiver {
    fn slots_for_next(&self) -> usize {
        match self.count {
            count if count < FEW_SLOTS || self.octets > count * LARGE_OCTETS => FEW_SLOTS,
            count if count < SLOTS || !self.are_single => SLOTS,
            _ => SINGLE_SLOTS,
        }
    }
}

impl UdpReceiver {
    /// See [`BatchReceiver`](crate::transport::seam::BatchReceiver); so the others.
    pub fn new(worker: usize) -> UdpReceiver {
        UdpReceiver {
            worker,
            receiver: Receiver::new(SINGLE_SLOTS, FEW_SLOTS),
            slots: FEW_SLOTS,
            count: 0,
            octets: 0,
            are_single: true,
            replies: Replies { sender: DatagramSender::new(), octets: Vec::new(), messages: Vec::new() },
        }
    }

    pub fn receive(&mut self, link: &UdpLink) -> Result<usize, Errno> {
        let Some(socket) = link.own() else { return Err(EAGAIN) };
        if self.count > 0 {
            self.slots = self.slots_for_next();
        }
        (self.count, self.octets, self.are_single) = (0, 0, true);
        self.count = self.receiver.receive(socket, self.slots)?;
        Ok(self.count)
    }

    pub fn arrival(&mut self, index: usize, transport: &UdpTransport) -> Option<Arrival<MixedOrigin>> {
        let message = self.receiver.message(index);
        self.octets += message.length;
        self.are_single &= message.length <= message.segment;
        if let Some(overflow) = message.overflow {
            transport.set_overflow(self.worker, overflow);
        }
        let origin = MixedOrigin { source: message.source?.into(), pin: message.pin };
        let start = index * self.receiver.stride();
        Some(Arrival { origin, start, length: message.length, segment: message.segment, gap: 0 })
    }

    pub fn octets(&mut self) -> &mut [u8] {
        self.receiver.octets()
    }

    pub fn expects_more(&self) -> bool {
        self.octets > MORE_OCTETS
    }

    pub fn reply(&mut self, packet: &[u8], to: &MixedOrigin, transport: &UdpTransport) {
        let Ok((destination, _)) = transport.address_of(&to.source) else { return };
        let (start, length) = (self.replies.octets.len(), packet.len());
        self.replies.octets.extend_from_slice(packet);
        let message = Outgoing { start, length, segment: 0, destination, pin: to.pin, class: 0, hops: 0 };
        self.replies.messages.push(message);
    }

    pub fn send_replies(&mut self, link: &UdpLink, counters: &Counters) {
        let Replies { sender, octets, messages } = &mut self.replies;
        let Some(socket) = link.own().filter(|_| !messages.is_empty()) else { return };
        for message in messages.iter_mut() {
            message.hops = socket.other_hops(message.destination.is_ipv4());
        }
        let mut at = 0;
        while at < messages.len() {
            let (sent, number) = sender.send_many(socket, octets, &messages[at..]);
            at += sent;
            if number != 0 {
                counters.count_drops(Transmit, drop_reason(number), 1, None);
                at += 1;
            }
        }
        messages.clear();
        octets.clear();
    }
}
