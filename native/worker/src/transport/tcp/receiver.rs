//! Reads the streams of one worker, one after the other, and finds the packets in them.

use std::sync::Arc;

use bridged_sys::epoll::Ready;
use bridged_sys::memory::resident;

use crate::contract::{Endpoint, StreamEnd};
use crate::control::events::EventQueue;
use crate::sync::lock;
use crate::tables::keys::SPARE_OCTETS;
use crate::transport::tcp::framing::{find_packets, next_length, FramedRun, FRAMED_OCTETS};
use crate::transport::tcp::stream::Stream;
use crate::transport::tcp::streams::Streams;

/// Bytes of one read.
const READ_OCTETS: usize = 256 * 1024;

/// See the module.
pub struct StreamReader {
    worker: usize,
    /// What is ready, newest last; read from the end.
    ready: Vec<Ready>,
    /// Made with the first stream.
    octets: Option<Box<[u8]>>,
    /// What the last call found.
    pub runs: Vec<FramedRun>,
    /// Whose they are.
    pub endpoint: Option<Endpoint>,
}

impl StreamReader {
    /// For a worker.
    pub fn new(worker: usize) -> StreamReader {
        StreamReader { worker, ready: Vec::new(), octets: None, runs: Vec::new(), endpoint: None }
    }

    /// Read the next stream with something in it into `runs`; false: none has, for now.
    pub fn receive(&mut self, streams: &Streams, events: &EventQueue) -> bool {
        self.runs.clear();
        if self.ready.is_empty() {
            streams.ready(self.worker, &mut self.ready);
        }
        while let Some(ready) = self.ready.pop() {
            let Some(stream) = streams.of(ready.token) else { continue };
            if ready.writes {
                stream.flush();
            }
            if ready.reads {
                self.read(&stream);
            }
            if let Some(reason) = stream.ended() {
                streams.remove(&stream, reason, events);
            }
            if !self.runs.is_empty() {
                return true;
            }
        }
        false
    }

    /// The bytes of all packets, with room behind them.
    pub fn octets(&mut self) -> &mut [u8] {
        self.octets.as_deref_mut().unwrap_or_default()
    }

    fn read(&mut self, stream: &Arc<Stream>) {
        let octets = self.octets.get_or_insert_with(|| resident(FRAMED_OCTETS + READ_OCTETS + SPARE_OCTETS));
        let mut rest = lock(&stream.rest);
        let held = rest.len().min(octets.len() - READ_OCTETS - SPARE_OCTETS);
        octets[..held].copy_from_slice(&rest[..held]);
        let arrived = stream.receive(&mut octets[held..held + READ_OCTETS]).unwrap_or(0);
        let end = held + arrived;
        rest.clear();
        if stream.is_closing() {
            // Whatever came with the end is still of use, unless nobody wants it.
            if stream.ended() != Some(StreamEnd::Closed) {
                return;
            }
        }
        let most = stream.packet_octets();
        match find_packets(&octets[..end], &mut self.runs) {
            Ok(used) if next_length(&octets[used..end]) <= most && self.runs.iter().all(|run| run.size <= most) => {
                rest.extend_from_slice(&octets[used..end]);
            }
            _ => stream.break_off(StreamEnd::BadFraming),
        }
        self.endpoint = Some(stream.endpoint);
    }
}
