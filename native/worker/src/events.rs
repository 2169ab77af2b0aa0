//! Events on their way to the control plane, behind an eventfd; every queue is bounded.
//!
//! Source: bridged/dataplane/contract.py. Strangers can send control datagrams: they are limited by source, and
//! leave room for peers, so that a flood cannot cut off a renegotiation.

use std::collections::VecDeque;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsRawFd, RawFd};

use bridged_core::policer::{Rate, Source, SourceLimit};
use bridged_core::Nanos;
use bridged_sys::descriptor::EventFd;

use crate::contract::{Event, CONTROL_QUEUE_DATAGRAMS, EVENT_QUEUE_EVENTS};
use crate::counters::Reason;
use crate::sync::{lock, Mutex};

const STRANGER_QUEUE_DATAGRAMS: usize = CONTROL_QUEUE_DATAGRAMS * 3 / 4;
/// Larger ones cannot be control packets (tls-mtu is at most 2048).
const CONTROL_DATAGRAM_OCTETS: usize = 4096;

#[derive(Debug)]
struct Waiting {
    queue: VecDeque<Event>,
    control: usize,
    limit: SourceLimit,
    /// None once closed.
    signal: Option<EventFd>,
}

impl Waiting {
    fn append(&mut self, event: Event) {
        self.queue.push_back(event);
        if let Some(signal) = &self.signal {
            signal.signal();
        }
    }
}

/// Control datagrams and all other events, oldest first.
#[derive(Debug)]
pub struct EventQueue {
    waiting: Mutex<Waiting>,
}

impl EventQueue {
    /// An empty one; `seed` is random.
    ///
    /// # Errors
    /// EMFILE, ENOMEM.
    pub fn new(seed: u64) -> io::Result<EventQueue> {
        let signal = Some(EventFd::new()?);
        let waiting = Waiting { queue: VecDeque::new(), control: 0, limit: SourceLimit::new(seed), signal };
        Ok(EventQueue { waiting: Mutex::new(waiting) })
    }

    /// Readable while events wait; -1 once closed.
    pub fn descriptor(&self) -> RawFd {
        lock(&self.waiting).signal.as_ref().map_or(-1, AsRawFd::as_raw_fd)
    }

    /// Close the descriptor. What waits can still be taken.
    pub fn close(&self) {
        lock(&self.waiting).signal = None;
    }

    /// Datagrams and other events that wait.
    pub fn depths(&self) -> (usize, usize) {
        let waiting = lock(&self.waiting);
        (waiting.control, waiting.queue.len() - waiting.control)
    }

    /// Queue an event; false where there is no room (`event_queue_full`).
    pub fn put(&self, event: Event) -> bool {
        let mut waiting = lock(&self.waiting);
        if waiting.queue.len() - waiting.control >= EVENT_QUEUE_EVENTS {
            return false;
        }
        waiting.append(event);
        true
    }

    /// Queue a control datagram, or say why not. `is_known`: it is from a peer's endpoint.
    ///
    /// # Errors
    /// The drop reason.
    pub fn put_control(&self, datagram: &[u8], source: SocketAddr, now: Nanos, is_known: bool) -> Result<(), Reason> {
        if datagram.len() > CONTROL_DATAGRAM_OCTETS {
            return Err(Reason::BadLength);
        }
        let address = match source.ip() {
            IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
            IpAddr::V6(v6) => u128::from(v6),
        };
        let (port, rate) = if is_known { (u32::from(source.port()), Rate::PEER) } else { (0, Rate::STRANGER) };
        let mut waiting = lock(&self.waiting);
        if !waiting.limit.allows(Source { address, port }, now, rate) {
            return Err(Reason::SourceRate);
        }
        let room = if is_known { CONTROL_QUEUE_DATAGRAMS } else { STRANGER_QUEUE_DATAGRAMS };
        if waiting.control >= room {
            return Err(Reason::ControlQueueFull);
        }
        waiting.control += 1;
        waiting.append(Event::ControlReceived { datagram: datagram.to_vec(), source });
        Ok(())
    }

    /// Up to `limit` events; the descriptor stays readable while more wait.
    pub fn take(&self, limit: usize) -> Vec<Event> {
        let mut waiting = lock(&self.waiting);
        let count = limit.min(waiting.queue.len());
        let taken: Vec<Event> = waiting.queue.drain(..count).collect();
        waiting.control -= taken.iter().filter(|event| matches!(event, Event::ControlReceived { .. })).count();
        if let Some(signal) = waiting.signal.as_ref().filter(|_| waiting.queue.is_empty()) {
            signal.clear();
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bridged_sys::descriptor::wait_readable;

    fn endpoint(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn the_descriptor_is_readable_exactly_while_events_wait() {
        let queue = EventQueue::new(1).unwrap();
        let is_readable = || wait_readable(&[queue.descriptor()], Some(0)) != 0;
        assert!(!is_readable());
        for handle in 0..3 {
            assert!(queue.put(Event::PeerExpired { handle }));
        }
        assert_eq!(queue.take(2), [Event::PeerExpired { handle: 0 }, Event::PeerExpired { handle: 1 }]);
        assert!(is_readable());
        assert_eq!(queue.take(9).len(), 1);
        assert!(!is_readable());
    }

    #[test]
    fn strangers_leave_room_for_peers_and_for_other_events() {
        let queue = EventQueue::new(1).unwrap();
        let mut refused = None;
        for number in 0..2000u32 {
            let source = endpoint(&format!("10.0.{}.{}:9", number / 256, number % 256));
            refused = refused.or(queue.put_control(b"x", source, 0, false).err());
        }
        assert_eq!(refused, Some(Reason::ControlQueueFull));
        assert_eq!(queue.depths(), (STRANGER_QUEUE_DATAGRAMS, 0));
        assert_eq!(queue.put_control(b"x", endpoint("10.9.9.9:1"), 0, true), Ok(()));
        assert!(queue.put(Event::PeerExpired { handle: 1 }));
        assert_eq!(queue.put_control(&[0; 4097], endpoint("10.9.9.9:1"), 0, true), Err(Reason::BadLength));
    }

    #[test]
    fn one_stranger_is_limited_whatever_its_port() {
        let queue = EventQueue::new(1).unwrap();
        let passed = (0..1000u16)
            .filter(|port| queue.put_control(b"x", endpoint(&format!("10.0.0.1:{}", port + 1)), 0, false).is_ok())
            .count();
        assert_eq!(passed, 256);
    }

    #[test]
    fn other_events_are_bounded() {
        let queue = EventQueue::new(1).unwrap();
        let taken = (0..5000).filter(|handle| queue.put(Event::PeerExpired { handle: *handle })).count();
        assert_eq!(taken, EVENT_QUEUE_EVENTS);
    }
}
