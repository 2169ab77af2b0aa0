//! The TCP connections of one data plane, shared out among its workers.
//!
//! Source: bridged/dataplane/contract, `adopt_stream`.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use bridged_core::Nanos;
use bridged_sys::epoll::{Epoll, Ready};
use bridged_sys::EMSGSIZE;

use crate::contract::{Endpoint, Event, StreamEnd, STREAMS_LINGERING, STREAM_LINGER_NANOS};
use crate::control::events::EventQueue;
use crate::sync::{lock, Mutex};
use crate::transport::tcp::framing::FRAMED_OCTETS;
use crate::transport::tcp::stream::Stream;

/// See the module.
#[derive(Debug)]
pub struct Streams {
    workers: Box<[WorkerStreams]>,
    table: Mutex<Table>,
}

#[derive(Debug, Default)]
struct WorkerStreams {
    /// Made with the first stream.
    epoll: OnceLock<Arc<Epoll>>,
    count: AtomicUsize,
    /// Streams that came with bytes to look at.
    fresh: Mutex<Vec<Arc<Stream>>>,
}

#[derive(Debug, Default)]
struct Table {
    by_endpoint: HashMap<Endpoint, Arc<Stream>>,
    by_token: HashMap<u64, Arc<Stream>>,
    /// Those about to close, oldest first.
    closing: Vec<Arc<Stream>>,
    next_token: u64,
    is_stopped: bool,
}

impl Streams {
    /// None, for so many workers.
    pub fn new(workers: usize) -> Streams {
        let workers = (0..workers).map(|_| WorkerStreams::default()).collect();
        Streams { workers, table: Mutex::new(Table::default()) }
    }

    /// Take over a connection; which worker is to look at it. No event of the end of one before it follows.
    ///
    /// # Errors
    /// What the kernel says; EMSGSIZE where more was read than can be the beginning of one packet.
    pub fn adopt(
        &self,
        descriptor: RawFd,
        endpoint: Endpoint,
        received: &[u8],
        packet_octets: usize,
        events: &EventQueue,
    ) -> io::Result<Option<usize>> {
        if received.len() > FRAMED_OCTETS {
            return Err(io::Error::from_raw_os_error(EMSGSIZE));
        }
        let mut table = lock(&self.table);
        let fewest = self.workers.iter().enumerate().min_by_key(|(_, worker)| worker.count.load(Relaxed));
        let Some((number, worker)) = fewest.filter(|_| !table.is_stopped) else { return Ok(None) };
        let epoll = match worker.epoll.get() {
            Some(epoll) => epoll,
            None => {
                let made = Arc::new(Epoll::new()?);
                worker.epoll.get_or_init(|| made)
            }
        };
        table.next_token += 1;
        let token = table.next_token;
        let known_by = (token, number, packet_octets);
        let stream = Arc::new(Stream::adopt(descriptor, endpoint, received, known_by, Arc::clone(epoll))?);
        if let Some(before) = table.by_endpoint.insert(endpoint, Arc::clone(&stream)) {
            self.let_go(&mut table, &before);
        }
        // The one before it may have ended by itself a moment ago.
        events.forget_stream(&endpoint);
        table.by_token.insert(token, Arc::clone(&stream));
        worker.count.fetch_add(1, Relaxed);
        lock(&worker.fresh).push(stream);
        Ok(Some(number))
    }

    /// Close a stream once what waits has been sent; ignored where there is none. No event of its end follows.
    pub fn close_stream(&self, endpoint: &Endpoint, now: Nanos, events: &EventQueue) {
        let mut table = lock(&self.table);
        // It may have ended by itself a moment ago.
        events.forget_stream(endpoint);
        let Some(stream) = table.by_endpoint.remove(endpoint) else { return };
        stream.close_by(now + STREAM_LINGER_NANOS);
        table.closing.push(stream);
        if table.closing.len() > STREAMS_LINGERING {
            let oldest = Arc::clone(&table.closing[0]);
            self.let_go(&mut table, &oldest);
        }
    }

    /// The stream of an endpoint.
    pub fn at(&self, endpoint: &Endpoint) -> Option<Arc<Stream>> {
        lock(&self.table).by_endpoint.get(endpoint).cloned()
    }

    /// The stream of a number.
    pub fn of(&self, token: u64) -> Option<Arc<Stream>> {
        lock(&self.table).by_token.get(&token).cloned()
    }

    /// What a worker waits on for its streams; None: it has none.
    #[inline]
    pub fn poll_of(&self, worker: usize) -> Option<RawFd> {
        let worker = self.workers.get(worker).filter(|worker| worker.count.load(Relaxed) > 0)?;
        worker.epoll.get().map(|epoll| epoll.as_raw_fd())
    }

    /// What of a worker's streams is ready, those that have just come first.
    pub fn ready(&self, worker: usize, found: &mut Vec<Ready>) {
        let Some(worker) = self.workers.get(worker) else { return };
        let fresh = std::mem::take(&mut *lock(&worker.fresh));
        found.extend(fresh.iter().map(|stream| Ready { token: stream.token, reads: true, writes: false }));
        if let Some(epoll) = worker.epoll.get() {
            epoll.ready(found);
        }
    }

    /// Let a stream go that ended by itself, and report it unless it was closed before.
    pub fn remove(&self, stream: &Arc<Stream>, reason: StreamEnd, events: &EventQueue) {
        let mut table = lock(&self.table);
        let is_news = table.by_endpoint.get(&stream.endpoint).is_some_and(|known| Arc::ptr_eq(known, stream));
        self.let_go(&mut table, stream);
        if is_news {
            events.put(Event::StreamClosed { endpoint: stream.endpoint, reason });
        }
    }

    /// End those that took too long to close.
    pub fn tend(&self, now: Nanos) {
        let mut table = lock(&self.table);
        for stream in table.closing.clone() {
            if stream.is_overdue(now) {
                self.let_go(&mut table, &stream);
            }
        }
    }

    /// End all, and take no more.
    pub fn close(&self) {
        let mut table = lock(&self.table);
        table.is_stopped = true;
        let all: Vec<Arc<Stream>> = table.by_token.values().cloned().collect();
        for stream in all {
            self.let_go(&mut table, &stream);
        }
    }

    fn let_go(&self, table: &mut Table, stream: &Arc<Stream>) {
        if table.by_endpoint.get(&stream.endpoint).is_some_and(|known| Arc::ptr_eq(known, stream)) {
            table.by_endpoint.remove(&stream.endpoint);
        }
        table.closing.retain(|other| !Arc::ptr_eq(other, stream));
        if table.by_token.remove(&stream.token).is_some() {
            self.workers[stream.worker].count.fetch_sub(1, Relaxed);
        }
        stream.forget();
    }
}
