//! Sealed packets on their way out: those of peers over TCP each in one call, those over UDP as `udp/batch_sender` does.

use std::sync::Arc;

use crate::contract::{Carrier, Direction::Transmit, Endpoint};
use crate::control::counters::Reason;
use crate::control::names::BatchName;
use crate::sync::ArcSwap;
use crate::transport::mixed::MixedTransport;
use crate::transport::mixed_path::MixedPath;
use crate::transport::seam::{BatchSender, Packet, SendContext, Taken};
use crate::transport::tcp::stream::Stream;
use crate::transport::udp::batch_sender::{UdpBatchSender, UdpContext};

type Context<'a> = SendContext<'a, MixedTransport>;

#[inline]
fn of_udp<'a>(context: &Context<'a>) -> UdpContext<'a> {
    UdpContext {
        transport: &context.transport.udp,
        link: &context.link.udp,
        counters: context.counters,
        now: context.now,
    }
}

/// See the module.
pub struct MixedSender {
    thread: usize,
    udp: UdpBatchSender,
    streams: Vec<PendingStream>,
    /// Of all streams, one behind the other.
    packets: Vec<Packet>,
}

/// Packets for one stream: the next `count` of all.
struct PendingStream {
    owner: usize,
    stream: Arc<Stream>,
    count: usize,
}

impl MixedSender {
    #[cold]
    fn add_stream(&mut self, packets: &[Packet], stream: &Arc<Stream>) -> usize {
        let owner = self.udp.add_other();
        self.streams.push(PendingStream { owner, stream: Arc::clone(stream), count: packets.len() });
        self.packets.extend_from_slice(packets);
        owner
    }

    #[cold]
    fn send_streams(&mut self, arena: &[u8], context: &Context<'_>) {
        let mut at = 0;
        for PendingStream { owner, stream, count } in &self.streams {
            let packets = &self.packets[at..at + count];
            at += count;
            if packets.is_empty() {
                continue;
            }
            if stream.send(arena, packets) {
                let octets = packets.iter().map(|packet| packet.length).sum();
                self.udp.take(*owner, Taken { packets: *count, octets });
                context.counters.threads[self.thread].sizes(BatchName::SegmentsPerSend).observe(*count, 1);
            } else {
                context.counters.count_drops(Transmit, Reason::Unreachable, *count as u64, None);
            }
        }
    }
}

impl BatchSender<MixedTransport> for MixedSender {
    fn new(thread: usize) -> MixedSender {
        MixedSender { thread, udp: UdpBatchSender::new(thread), streams: Vec::new(), packets: Vec::new() }
    }

    fn clear(&mut self) {
        self.udp.clear();
        self.streams.clear();
        self.packets.clear();
    }

    #[inline]
    fn add(&mut self, packets: &[Packet], path: &MixedPath, context: &Context<'_>) -> usize {
        match path {
            MixedPath::Udp(path) => self.udp.add(packets, path, &of_udp(context)),
            MixedPath::Tcp(stream) => self.add_stream(packets, stream),
        }
    }

    #[inline]
    fn send<'a>(&mut self, arena: &[u8], context: &Context<'_>, path_of: impl Fn(usize) -> &'a ArcSwap<MixedPath>) {
        // None of them waits, so they do not wait for a full UDP socket either.
        if !self.streams.is_empty() {
            self.send_streams(arena, context);
        }
        self.udp.send(arena, &of_udp(context), path_of);
    }

    fn taken(&self, number: usize) -> Taken {
        self.udp.taken(number)
    }

    #[inline]
    fn open_end(&self, lengths: impl Iterator<Item = usize>, path: &MixedPath, context: &Context<'_>) -> usize {
        path.udp().map_or(0, |path| self.udp.open_end(lengths, path, &of_udp(context)))
    }

    fn send_control(&mut self, packet: &[u8], endpoint: Endpoint, context: &Context<'_>) -> Result<(), Reason> {
        match endpoint.carrier {
            Carrier::Udp => self.udp.send_control(packet, endpoint.address, &of_udp(context)),
            Carrier::Tcp => {
                let stream = context.transport.streams.at(&endpoint).ok_or(Reason::Unreachable)?;
                stream.send_control(packet).then_some(()).ok_or(Reason::Unreachable)
            }
        }
    }
}
