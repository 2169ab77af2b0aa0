//! Events for the control plane, behind an eventfd. Every queue is bounded.
//!
//! Source: bridged/dataplane/contract/events.py. Strangers can send control datagrams: they are limited by source, and
//! leave room for peers, so that a flood cannot cut off a renegotiation.
//! What is reported once (a peer expired, floated, has a worn key; the TAP failed) is state: it always has one place,
//! however often it happens before it is read.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsRawFd, RawFd};

use bridged_core::Nanos;
use bridged_sys::descriptor::EventFd;

use crate::contract::{Endpoint, Event, PeerHandle, EVENT_QUEUE_EVENTS, OCC_WAITING};
use crate::control::control_queue::{ControlQueue, Sender};
use crate::control::counters::Reason;
use crate::sync::{lock, Mutex};

/// What is reported once: a state has at most one event, which holds the latest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum State {
    Floated(PeerHandle),
    Expired(PeerHandle),
    Unknown(PeerHandle),
    Framing(PeerHandle),
    NearLimit(PeerHandle, u8),
    StreamClosed(Endpoint),
    TapFailed,
}

impl State {
    fn of(event: &Event) -> Option<State> {
        match *event {
            Event::PeerFloated { handle, .. } => Some(State::Floated(handle)),
            Event::PeerExpired { handle } => Some(State::Expired(handle)),
            Event::SessionUnknown { handle } => Some(State::Unknown(handle)),
            Event::FramingRefused { handle, .. } => Some(State::Framing(handle)),
            Event::KeyNearLimit { handle, key_id, .. } => Some(State::NearLimit(handle, key_id)),
            Event::StreamClosed { endpoint, .. } => Some(State::StreamClosed(endpoint)),
            Event::TapFailed { .. } => Some(State::TapFailed),
            _ => None,
        }
    }

    fn peer(self) -> Option<PeerHandle> {
        match self {
            State::Floated(handle)
            | State::Expired(handle)
            | State::Unknown(handle)
            | State::Framing(handle)
            | State::NearLimit(handle, _) => Some(handle),
            State::StreamClosed(_) | State::TapFailed => None,
        }
    }
}

/// A place in the queue.
#[derive(Debug)]
enum Place {
    Plain(Event),
    State(State),
}

#[derive(Debug)]
struct Waiting {
    queue: VecDeque<Place>,
    control: ControlQueue,
    /// Others that may be refused.
    others: usize,
    states: HashMap<State, Event>,
    /// OCC messages that wait, by peer.
    occ: HashMap<PeerHandle, usize>,
    /// None once closed.
    signal: Option<EventFd>,
}

impl Waiting {
    fn append(&mut self, place: Place) {
        let was_empty = self.is_empty();
        self.queue.push_back(place);
        self.signal_if(was_empty);
    }

    fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.control.len() == 0
    }

    fn signal_if(&self, was_empty: bool) {
        if let Some(signal) = self.signal.as_ref().filter(|_| was_empty) {
            signal.signal();
        }
    }

    fn put_state(&mut self, state: State, event: Event) {
        match self.states.entry(state) {
            Entry::Vacant(entry) => {
                entry.insert(event);
                self.append(Place::State(state));
            }
            Entry::Occupied(mut entry) => match (entry.get_mut(), event) {
                (Event::PeerFloated { endpoint, .. }, Event::PeerFloated { endpoint: latest, .. }) => {
                    *endpoint = latest
                }
                (known, latest @ Event::TapFailed { .. }) => *known = latest,
                _ => {}
            },
        }
    }

    fn may_put(&mut self, event: &Event) -> bool {
        if self.others >= EVENT_QUEUE_EVENTS {
            return false;
        }
        if let Event::OccReceived { handle, .. } = event {
            let waiting = self.occ.entry(*handle).or_insert(0);
            if *waiting >= OCC_WAITING {
                return false;
            }
            *waiting += 1;
        }
        self.others += 1;
        true
    }

    /// The descriptor is not readable where nothing waits.
    fn settle(&self) {
        if let Some(signal) = self.signal.as_ref().filter(|_| self.is_empty()) {
            signal.clear();
        }
    }

    /// The event of a place that leaves the queue; None: there is nothing to tell any more.
    fn leave(&mut self, place: Place) -> Option<Event> {
        let event = match place {
            Place::State(state) => {
                let event = self.states.remove(&state)?;
                // It is where it was: nothing has changed.
                let is_back = matches!(&event, Event::PeerFloated { endpoint, previous, .. } if endpoint == previous);
                return (!is_back).then_some(event);
            }
            Place::Plain(event) => event,
        };
        match &event {
            Event::OccReceived { handle, .. } => {
                self.others -= 1;
                if let Entry::Occupied(mut entry) = self.occ.entry(*handle) {
                    *entry.get_mut() -= 1;
                    if *entry.get() == 0 {
                        entry.remove();
                    }
                }
            }
            _ => self.others -= 1,
        }
        Some(event)
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
        let waiting = Waiting {
            queue: VecDeque::new(),
            control: ControlQueue::new(seed),
            others: 0,
            states: HashMap::new(),
            occ: HashMap::new(),
            signal,
        };
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
        (waiting.control.len(), waiting.queue.len())
    }

    /// Queue an event; false where there is no room (`event_queue_full`). For state there always is.
    pub fn put(&self, event: Event) -> bool {
        let mut waiting = lock(&self.waiting);
        match State::of(&event) {
            Some(state) => waiting.put_state(state, event),
            None if waiting.may_put(&event) => waiting.append(Place::Plain(event)),
            None => return false,
        }
        true
    }

    /// A peer has gone: nobody wants to hear of its state any more.
    pub fn forget(&self, handle: PeerHandle) {
        let mut waiting = lock(&self.waiting);
        let before = waiting.states.len();
        waiting.states.retain(|state, _| state.peer() != Some(handle));
        if waiting.states.len() < before {
            waiting.queue.retain(|place| !matches!(place, Place::State(state) if state.peer() == Some(handle)));
            waiting.settle();
        }
    }

    /// Nobody wants to hear any more that the stream of an endpoint has ended.
    pub fn forget_stream(&self, endpoint: &Endpoint) {
        let mut waiting = lock(&self.waiting);
        let gone = State::StreamClosed(*endpoint);
        if waiting.states.remove(&gone).is_some() {
            waiting.queue.retain(|place| !matches!(place, Place::State(state) if *state == gone));
            waiting.settle();
        }
    }

    /// Queue a control datagram, or say why not.
    ///
    /// # Errors
    /// The drop reason.
    pub fn put_control(&self, datagram: &[u8], source: Endpoint, now: Nanos, sender: Sender) -> Result<(), Reason> {
        let mut waiting = lock(&self.waiting);
        let was_empty = waiting.is_empty();
        waiting.control.put(datagram, source, now, sender)?;
        waiting.signal_if(was_empty);
        Ok(())
    }

    /// A session begins its handshake with this endpoint.
    pub fn expect(&self, endpoint: Endpoint) {
        lock(&self.waiting).control.expect(endpoint);
    }

    /// A session that was expected is over.
    pub fn stop_expecting(&self, endpoint: &Endpoint) {
        lock(&self.waiting).control.stop_expecting(endpoint);
    }

    /// Whether some session is in its handshake there.
    pub fn expects(&self, endpoint: &Endpoint) -> bool {
        lock(&self.waiting).control.expects(endpoint)
    }

    /// Whether to tell a stranger that its session is unknown here.
    pub fn may_notify(&self, source: &Endpoint, now: Nanos) -> bool {
        lock(&self.waiting).control.may_notify(source, now)
    }

    /// Whether to answer a hard reset.
    pub fn may_answer(&self, source: &Endpoint, session: &[u8; 8], now: Nanos) -> bool {
        lock(&self.waiting).control.may_answer(source, session, now)
    }

    /// Whether to open the key that a hard reset of this session brings.
    pub fn may_open_key(&self, session: &[u8; 8], now: Nanos) -> bool {
        lock(&self.waiting).control.may_open_key(session, now)
    }

    /// Whether to hand a hard reset up that brings its key only now.
    pub fn may_remember(&self, source: &Endpoint, session: &[u8; 8], now: Nanos) -> bool {
        lock(&self.waiting).control.may_remember(source, session, now)
    }

    /// Up to `limit` events; the descriptor stays readable while more wait.
    pub fn take(&self, limit: usize) -> Vec<Event> {
        let mut waiting = lock(&self.waiting);
        let mut taken = Vec::new();
        while taken.len() < limit {
            let Some(place) = waiting.queue.pop_front() else { break };
            taken.extend(waiting.leave(place));
        }
        waiting.control.take(limit - taken.len(), &mut taken);
        waiting.settle();
        taken
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{LimitTrigger, Mac, Station, StreamEnd, STRANGER_QUEUE_DATAGRAMS};
    use bridged_sys::descriptor::wait_readable;

    fn endpoint(text: &str) -> Endpoint {
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
    fn control_datagrams_leave_room_for_other_events_and_come_behind_them() {
        let queue = EventQueue::new(1).unwrap();
        let is_readable = || wait_readable(&[queue.descriptor()], Some(0)) != 0;
        let mut refused = None;
        for number in 0..4000u32 {
            let source = endpoint(&format!("10.0.{}.{}:9", number / 256, number % 256));
            refused = refused.or(queue.put_control(b"x", source, 0, Sender::Stranger).err());
        }
        assert_eq!(refused, Some(Reason::ControlQueueFull));
        assert_eq!(queue.depths(), (STRANGER_QUEUE_DATAGRAMS, 0));
        assert!(queue.put(Event::PeerExpired { handle: 1 }) && is_readable());
        assert_eq!(queue.take(1), [Event::PeerExpired { handle: 1 }]);
        assert_eq!(queue.take(9999).len(), STRANGER_QUEUE_DATAGRAMS);
        assert!(!is_readable());
    }

    fn moved(number: u8) -> Event {
        let station = Station::new(0, Mac::new([2, 0, 0, 0, 0, number]));
        Event::StationMoved { station, previous: None, current: Some(1) }
    }

    fn occ(handle: u64) -> Event {
        Event::OccReceived { handle, payload: vec![0; 17], left_out: 0 }
    }

    fn floated(from: &str, to: &str) -> Event {
        Event::PeerFloated { handle: 7, endpoint: endpoint(to), previous: endpoint(from) }
    }

    #[test]
    fn events_that_may_be_dropped_are_bounded_in_all_and_for_each_peer() {
        let queue = EventQueue::new(1).unwrap();
        assert_eq!((0..100).filter(|_| queue.put(occ(7))).count(), OCC_WAITING);
        assert!(queue.put(occ(8)), "one peer takes nothing from another");
        let room = EVENT_QUEUE_EVENTS - OCC_WAITING - 1;
        assert_eq!((0..5000).filter(|number| queue.put(moved(*number as u8))).count(), room);
        assert!(!queue.put(occ(9)));
        assert_eq!(queue.take(OCC_WAITING).len(), OCC_WAITING);
        assert!(queue.put(occ(7)), "there is room again");
    }

    #[test]
    fn state_is_never_refused_nor_lost_and_is_told_once() {
        let queue = EventQueue::new(1).unwrap();
        while queue.put(moved(1)) {}
        let state = |handle| {
            let near = Event::KeyNearLimit { handle, key_id: 1, trigger: LimitTrigger::Bytes };
            [Event::PeerExpired { handle }, near]
        };
        for _ in 0..3 {
            for handle in 0..2000 {
                assert!(state(handle).into_iter().all(|event| queue.put(event)));
            }
            assert!(queue.put(Event::TapFailed { number: 5 }) && queue.put(Event::TapFailed { number: 19 }));
        }
        let told = queue.take(usize::MAX).split_off(EVENT_QUEUE_EVENTS);
        let wanted: Vec<Event> = (0..2000).flat_map(state).chain([Event::TapFailed { number: 19 }]).collect();
        assert_eq!(told, wanted);
        assert!(queue.put(Event::PeerExpired { handle: 1 }));
        assert_eq!(queue.take(9), [Event::PeerExpired { handle: 1 }], "the next time it is told again");
    }

    #[test]
    fn a_peer_that_moves_about_has_one_event_with_its_latest_endpoint() {
        let queue = EventQueue::new(1).unwrap();
        assert!(queue.put(floated("10.0.0.1:1", "10.0.0.1:2")));
        for _ in 0..1000 {
            assert!(queue.put(floated("10.0.0.1:2", "10.0.0.1:3")) && queue.put(floated("10.0.0.1:3", "10.0.0.1:4")));
        }
        assert_eq!(queue.depths(), (0, 1));
        assert_eq!(queue.take(9), [floated("10.0.0.1:1", "10.0.0.1:4")]);
        assert!(queue.put(floated("10.0.0.1:4", "10.0.0.1:5")) && queue.put(floated("10.0.0.1:5", "10.0.0.1:4")));
        assert_eq!(queue.take(9), [], "it is where it was");
        assert_eq!(wait_readable(&[queue.descriptor()], Some(0)), 0);
    }

    #[test]
    fn nothing_waits_of_a_stream_that_was_closed() {
        let queue = EventQueue::new(1).unwrap();
        let closed = |number: u8| Event::StreamClosed {
            endpoint: endpoint(&format!("10.0.0.1:{number}")),
            reason: StreamEnd::Closed,
        };
        assert!(queue.put(closed(1)) && queue.put(closed(2)));
        queue.forget_stream(&endpoint("10.0.0.1:1"));
        queue.forget_stream(&endpoint("10.0.0.1:3"));
        assert_eq!(queue.take(9), [closed(2)]);
        assert!(queue.put(closed(1)), "another stream of that endpoint");
        queue.forget_stream(&endpoint("10.0.0.1:1"));
        assert_eq!((queue.depths(), wait_readable(&[queue.descriptor()], Some(0))), ((0, 0), 0));
    }

    #[test]
    fn nothing_waits_of_a_peer_that_has_gone() {
        let queue = EventQueue::new(1).unwrap();
        for handle in [7, 8] {
            assert!(queue.put(Event::PeerExpired { handle }));
        }
        assert!(queue.put(floated("10.0.0.1:1", "10.0.0.1:2")));
        queue.forget(7);
        assert_eq!(queue.depths(), (0, 1));
        queue.forget(8);
        assert_eq!((queue.depths(), wait_readable(&[queue.descriptor()], Some(0))), ((0, 0), 0));
    }
}
