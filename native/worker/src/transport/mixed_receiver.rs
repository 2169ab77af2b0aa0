//! Reads for one thread: the UDP socket and one of its streams in turn.

use bridged_sys::{Errno, EAGAIN};

use crate::contract::Carrier;
use crate::control::counters::Counters;
use crate::control::events::EventQueue;
use crate::transport::mixed::{MixedLink, MixedTransport};
use crate::transport::mixed_path::MixedOrigin;
use crate::transport::seam::{Arrival, BatchReceiver};
use crate::transport::tcp::framing::PREFIX_OCTETS;
use crate::transport::tcp::receiver::StreamReader;
use crate::transport::udp::receiver::UdpReceiver;

/// See the module.
pub struct MixedReceiver {
    udp: UdpReceiver,
    streams: StreamReader,
    /// What the last call read.
    read: Carrier,
}

impl MixedReceiver {
    /// Whoever did not read last reads first.
    #[cold]
    fn receive_either(
        &mut self,
        link: &MixedLink,
        transport: &MixedTransport,
        events: &EventQueue,
    ) -> Result<usize, Errno> {
        let streams_first = self.read == Carrier::Udp;
        if streams_first && self.streams.receive(&transport.streams, events) {
            self.read = Carrier::Tcp;
            return Ok(self.streams.runs.len());
        }
        self.read = Carrier::Udp;
        match self.udp.receive(&link.udp) {
            Err(EAGAIN) if !streams_first && self.streams.receive(&transport.streams, events) => {
                self.read = Carrier::Tcp;
                Ok(self.streams.runs.len())
            }
            other => other,
        }
    }
}

impl BatchReceiver<MixedTransport> for MixedReceiver {
    fn new(worker: usize) -> MixedReceiver {
        MixedReceiver { udp: UdpReceiver::new(worker), streams: StreamReader::new(worker), read: Carrier::Udp }
    }

    #[inline]
    fn receive(&mut self, link: &MixedLink, transport: &MixedTransport, events: &EventQueue) -> Result<usize, Errno> {
        if link.streams.is_some() {
            return self.receive_either(link, transport, events);
        }
        self.read = Carrier::Udp;
        self.udp.receive(&link.udp)
    }

    #[inline]
    fn arrival(&mut self, index: usize, transport: &MixedTransport) -> Option<Arrival<MixedOrigin>> {
        if self.read == Carrier::Udp {
            return self.udp.arrival(index, &transport.udp);
        }
        let run = self.streams.runs.get(index)?;
        let origin = MixedOrigin { source: self.streams.endpoint?, pin: None };
        Some(Arrival { origin, start: run.start, length: run.length, segment: run.size, gap: PREFIX_OCTETS })
    }

    #[inline]
    fn octets(&mut self) -> &mut [u8] {
        match self.read {
            Carrier::Udp => self.udp.octets(),
            Carrier::Tcp => self.streams.octets(),
        }
    }

    fn expects_more(&self) -> bool {
        // A stream may have more, or the next one.
        self.read == Carrier::Tcp || self.udp.expects_more()
    }

    fn reply(&mut self, packet: &[u8], to: &MixedOrigin, transport: &MixedTransport) {
        match to.source.carrier {
            Carrier::Udp => self.udp.reply(packet, to, &transport.udp),
            Carrier::Tcp => {
                if let Some(stream) = transport.streams.at(&to.source) {
                    stream.send_control(packet);
                }
            }
        }
    }

    fn send_replies(&mut self, link: &MixedLink, counters: &Counters) {
        self.udp.send_replies(&link.udp, counters);
    }
}
