//! Control datagrams for the control plane: known endpoints first, and strangers never in their
//! way.
//!
//! Source: bridged/dataplane/portable/control/control_queue.py. Every lane is bounded, and every source has a rate.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;

use bridged_core::policer::{Rate, Source, SourceLimit};
use bridged_core::resets::{host_of, ResetLimit};
use bridged_core::Nanos;

use crate::contract::{Endpoint, Event, PeerHandle, CONTROL_QUEUE_DATAGRAMS, STRANGER_QUEUE_DATAGRAMS};
use crate::control::counters::Reason;

/// Larger ones cannot be control packets (tls-mtu is at most 2048).
const CONTROL_DATAGRAM_OCTETS: usize = 4096;
/// For an endpoint in its handshake.
const HANDSHAKE: Rate = Rate { burst: 128, per_second: 64 };
/// For all endpoints of a host in their handshakes: enough for a thousand clients that return at once.
const HANDSHAKES: Rate = Rate { burst: 8192, per_second: 4096 };
/// For a host whose clients brought their cookies back.
const NEWCOMERS: Rate = Rate { burst: 4096, per_second: 512 };
/// For datagrams without use: a few go up for the log.
const SAMPLES: Rate = Rate { burst: 32, per_second: 8 };
/// Endpoints that brought a cookie back and may continue without it.
const PROVEN: Rate = Rate { burst: 16, per_second: 1 };
/// For all that continue without their key, because they bring it once: a captured reset makes anybody one of them.
const FOLLOWERS: Rate = Rate { burst: 2048, per_second: 1024 };
/// Notices to one endpoint, and to all together.
const NOTICE: Rate = Rate { burst: 1, per_second: 1 };
const NOTICES: Rate = Rate { burst: 1024, per_second: 1024 };
/// Of each call, leave one in this many datagrams to strangers, even if peers fill it.
const STRANGERS_SHARE: usize = 8;

/// The sender of a control datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sender {
    /// This peer, from whichever endpoint it has floated to.
    Peer(PeerHandle),
    /// Somebody else; the datagram was not looked at.
    Stranger,
    /// A stranger that brought its cookie back.
    Proven,
    /// A stranger that brings its key only now, and may continue without it.
    Remembered,
    /// A stranger that may have done so before; else it is refused for this reason.
    Unproven,
    /// A stranger whose packet is good for nothing, for this reason.
    Useless(Reason),
}

type Lane = VecDeque<(Vec<u8>, Endpoint)>;

/// See the module.
#[derive(Debug)]
pub struct ControlQueue {
    known: Lane,
    strangers: Lane,
    limit: SourceLimit,
    proven: SourceLimit,
    remembered: SourceLimit,
    resets: ResetLimit,
    noticed: SourceLimit,
    /// Endpoints in their handshake, and by how many sessions.
    expected: HashMap<Endpoint, u32>,
}

impl ControlQueue {
    /// An empty one; `seed` is random.
    pub fn new(seed: u64) -> ControlQueue {
        ControlQueue {
            known: Lane::new(),
            strangers: Lane::new(),
            limit: SourceLimit::new(seed),
            proven: SourceLimit::new(seed ^ 1),
            remembered: SourceLimit::new(seed ^ 4),
            resets: ResetLimit::new(seed ^ 2),
            noticed: SourceLimit::new(seed ^ 3),
            expected: HashMap::new(),
        }
    }

    /// Datagrams that wait.
    pub fn len(&self) -> usize {
        self.known.len() + self.strangers.len()
    }

    /// A session begins its handshake with this endpoint.
    pub fn expect(&mut self, endpoint: Endpoint) {
        *self.expected.entry(endpoint).or_default() += 1;
    }

    /// A session that was expected is over.
    pub fn stop_expecting(&mut self, endpoint: &Endpoint) {
        if let Some(count) = self.expected.get_mut(endpoint) {
            *count -= 1;
            if *count == 0 {
                self.expected.remove(endpoint);
            }
        }
    }

    /// Whether some session is in its handshake there.
    pub fn expects(&self, endpoint: &Endpoint) -> bool {
        self.expected.contains_key(endpoint)
    }

    /// Whether to answer a hard reset.
    pub fn may_answer(&mut self, source: &Endpoint, session: &[u8; 8], now: Nanos) -> bool {
        let source = Source { address: address_of(source), port: u32::from(source.port()) };
        self.resets.allows(source, u64::from_be_bytes(*session), now)
    }

    /// Whether to open the key that a hard reset of this session brings.
    pub fn may_open_key(&mut self, session: &[u8; 8], now: Nanos) -> bool {
        self.resets.allows_key(u64::from_be_bytes(*session), now)
    }

    /// Whether to hand a hard reset up that brings its key only now.
    pub fn may_remember(&mut self, source: &Endpoint, session: &[u8; 8], now: Nanos) -> bool {
        let source = Source { address: address_of(source), port: u32::from(source.port()) };
        self.resets.allows_once(source, u64::from_be_bytes(*session), now)
    }

    /// Whether to tell a stranger that its session is unknown here.
    pub fn may_notify(&mut self, source: &Endpoint, now: Nanos) -> bool {
        let endpoint = Source { address: address_of(source), port: u32::from(source.port()) };
        let everybody = Source { address: 0, port: u32::MAX };
        self.noticed.allows(endpoint, now, NOTICE) && self.noticed.allows(everybody, now, NOTICES)
    }

    /// Queue a datagram, or say why not.
    ///
    /// # Errors
    /// The drop reason.
    pub fn put(&mut self, datagram: &[u8], source: Endpoint, now: Nanos, sender: Sender) -> Result<(), Reason> {
        if datagram.len() > CONTROL_DATAGRAM_OCTETS {
            return Err(Reason::BadLength);
        }
        let endpoint = Source { address: address_of(&source), port: u32::from(source.port()) };
        let host = Source { address: host_of(endpoint.address), port: 0 };
        let nobody = Source { address: 0, port: u32::MAX };
        let is_proven = self.proven.knows(endpoint);
        let goes_on = sender == Sender::Unproven && (is_proven || self.remembered.knows(endpoint));
        let (lane, room, who, rate, refusal) = match sender {
            Sender::Peer(handle) => {
                // No address has such a port: the peer's own bucket.
                let peer = Source { address: u128::from(handle), port: u32::MAX - 1 };
                (&mut self.known, CONTROL_QUEUE_DATAGRAMS, peer, Rate::PEER, Reason::SourceRate)
            }
            _ if self.expected.contains_key(&source) => {
                (&mut self.known, CONTROL_QUEUE_DATAGRAMS, endpoint, HANDSHAKE, Reason::SourceRate)
            }
            Sender::Stranger => {
                (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, host, Rate::STRANGER, Reason::SourceRate)
            }
            Sender::Proven => {
                self.proven.allows(endpoint, now, PROVEN);
                (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, host, NEWCOMERS, Reason::SourceRate)
            }
            Sender::Remembered => {
                self.remembered.allows(endpoint, now, PROVEN);
                (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, host, NEWCOMERS, Reason::SourceRate)
            }
            Sender::Unproven if goes_on => {
                (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, endpoint, HANDSHAKE, Reason::SourceRate)
            }
            Sender::Unproven => {
                (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, nobody, SAMPLES, Reason::CookieMismatch)
            }
            Sender::Useless(reason) => (&mut self.strangers, STRANGER_QUEUE_DATAGRAMS, nobody, SAMPLES, reason),
        };
        if !self.limit.allows(who, now, rate) {
            return Err(refusal);
        }
        let is_expected = !matches!(sender, Sender::Peer(_)) && self.expected.contains_key(&source);
        let handshakes = Source { address: host.address, port: u32::MAX - 2 };
        if (is_expected || goes_on) && !self.limit.allows(handshakes, now, HANDSHAKES) {
            return Err(Reason::SourceRate);
        }
        let followers = Source { address: 0, port: u32::MAX - 3 };
        if goes_on && !is_expected && !is_proven && !self.limit.allows(followers, now, FOLLOWERS) {
            return Err(Reason::SourceRate);
        }
        if lane.len() >= room {
            return Err(Reason::ControlQueueFull);
        }
        lane.push_back((datagram.to_vec(), source));
        Ok(())
    }

    /// Add up to `limit` to `taken`: those of known endpoints first, but for a share.
    pub fn take(&mut self, limit: usize, taken: &mut Vec<Event>) {
        let share = limit.div_ceil(STRANGERS_SHARE).min(self.strangers.len());
        let known = self.known.len().min(limit - share);
        let strangers = self.strangers.len().min(limit - known);
        let lanes = self.known.drain(..known).chain(self.strangers.drain(..strangers));
        taken.extend(lanes.map(|(datagram, source)| Event::ControlReceived { datagram, source }));
    }
}

fn address_of(source: &Endpoint) -> u128 {
    match source.ip() {
        IpAddr::V4(v4) => u128::from(v4.to_ipv6_mapped()),
        IpAddr::V6(v6) => u128::from(v6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn endpoint(text: &str) -> Endpoint {
        text.parse().unwrap()
    }

    fn many(number: u32) -> Endpoint {
        endpoint(&format!("10.{}.{}.{}:9", number >> 16, (number >> 8) & 255, number & 255))
    }

    fn taken(queue: &mut ControlQueue, limit: usize) -> Vec<Endpoint> {
        let mut events = Vec::new();
        queue.take(limit, &mut events);
        let source = |event| match event {
            Event::ControlReceived { source, .. } => source,
            other => panic!("{other:?}"),
        };
        events.into_iter().map(source).collect()
    }

    #[test]
    fn strangers_leave_room_for_peers_and_for_handshakes() {
        let mut queue = ControlQueue::new(1);
        let mut refused = None;
        for number in 0..2 * STRANGER_QUEUE_DATAGRAMS as u32 {
            refused = refused.or(queue.put(b"x", many(number), 0, Sender::Stranger).err());
        }
        assert_eq!(refused, Some(Reason::ControlQueueFull));
        assert_eq!(queue.len(), STRANGER_QUEUE_DATAGRAMS);
        assert_eq!(queue.put(b"x", endpoint("10.9.9.9:1"), 0, Sender::Peer(1)), Ok(()));
        queue.expect(endpoint("10.9.9.9:2"));
        assert_eq!(queue.put(b"x", endpoint("10.9.9.9:2"), 0, Sender::Useless(Reason::BadOpcode)), Ok(()));
        assert_eq!(queue.put(&[0; 4097], endpoint("10.9.9.9:1"), 0, Sender::Peer(1)), Err(Reason::BadLength));
        assert_eq!(taken(&mut queue, 3), [endpoint("10.9.9.9:1"), endpoint("10.9.9.9:2"), many(0)]);
    }

    #[test]
    fn peers_leave_a_share_to_strangers() {
        let mut queue = ControlQueue::new(1);
        queue.put(b"x", many(1), 0, Sender::Stranger).unwrap();
        for _ in 0..64 {
            queue.put(b"x", endpoint("10.9.9.9:1"), 0, Sender::Peer(1)).unwrap();
        }
        assert!(taken(&mut queue, 8).contains(&many(1)));
        assert_eq!(taken(&mut queue, 100).len(), 57);
        assert_eq!(queue.len(), 0);
    }

    #[test]
    fn all_handshakes_of_one_host_have_one_limit() {
        let mut queue = ControlQueue::new(1);
        let mut passed = 0;
        for from in 1..=256u16 {
            let from = endpoint(&format!("10.0.0.1:{from}"));
            queue.expect(from);
            for _ in 0..64 {
                passed += usize::from(queue.put(b"x", from, 0, Sender::Stranger) != Err(Reason::SourceRate));
            }
        }
        assert_eq!(passed, 8192);
        let other = endpoint("10.0.0.2:1");
        queue.expect(other);
        let mut taken = Vec::new();
        queue.take(1000, &mut taken);
        assert_eq!(queue.put(b"x", other, 0, Sender::Stranger), Ok(()));
    }

    #[test]
    fn a_peer_gains_nothing_by_floating_from_port_to_port() {
        let mut queue = ControlQueue::new(1);
        let port = |port: u16| endpoint(&format!("10.0.0.1:{port}"));
        let mut passed = 0;
        for from in 1..3000u16 {
            passed += usize::from(queue.put(b"x", port(from), 0, Sender::Peer(7)).is_ok());
        }
        assert_eq!(passed, 1024);
        assert_eq!(queue.put(b"x", port(1), 0, Sender::Peer(7)), Err(Reason::SourceRate));
        assert_eq!(queue.put(b"x", port(1), 0, Sender::Peer(8)), Ok(()));
    }

    #[test]
    fn one_stranger_is_limited_whatever_its_port_and_clients_behind_one_address_are_not_when_they_are_known() {
        let mut queue = ControlQueue::new(1);
        let port = |port: u16| endpoint(&format!("10.0.0.1:{port}"));
        let passed = (1..1000u16).filter(|&from| queue.put(b"x", port(from), 0, Sender::Stranger).is_ok()).count();
        assert_eq!(passed, 256);
        for from in 1..500u16 {
            queue.expect(port(from));
            assert_eq!(queue.put(b"x", port(from), 0, Sender::Stranger), Ok(()));
        }
        for from in 1..500u16 {
            queue.stop_expecting(&port(from));
            assert!(!queue.expects(&port(from)));
        }
        assert_eq!(queue.put(b"x", port(1), 0, Sender::Stranger), Err(Reason::SourceRate));
    }

    #[test]
    fn all_addresses_of_an_ipv6_prefix_are_one_stranger() {
        let mut queue = ControlQueue::new(1);
        let from = |number: u16| endpoint(&format!("[2001:db8::{number:x}]:5"));
        let passed = (1..3000u16).filter(|&number| queue.put(b"x", from(number), 0, Sender::Stranger).is_ok()).count();
        assert_eq!(passed, 256);
    }

    #[test]
    fn an_endpoint_is_expected_as_long_as_one_of_its_sessions_is() {
        let mut queue = ControlQueue::new(1);
        queue.stop_expecting(&many(1));
        queue.expect(many(1));
        queue.expect(many(1));
        queue.stop_expecting(&many(1));
        assert!(queue.expects(&many(1)));
        queue.stop_expecting(&many(1));
        assert!(!queue.expects(&many(1)));
    }

    #[test]
    fn who_brought_its_cookie_back_goes_on_without_naming_it() {
        let mut queue = ControlQueue::new(1);
        for number in 0..200 {
            let _ = queue.put(b"x", many(number), 0, Sender::Unproven);
        }
        assert_eq!(queue.put(b"x", many(300), 0, Sender::Unproven), Err(Reason::CookieMismatch));
        assert_eq!(queue.put(b"x", many(300), 0, Sender::Proven), Ok(()));
        assert_eq!(queue.put(b"x", many(300), 0, Sender::Unproven), Ok(()));
    }

    #[test]
    fn those_whose_key_came_once_have_one_limit_together_and_others_have_none_of_it() {
        let mut queue = ControlQueue::new(1);
        let mut taken = Vec::new();
        let mut passed = 0;
        for number in 0..300 {
            assert_eq!(queue.put(b"x", many(number), 0, Sender::Remembered), Ok(()));
            for _ in 0..20 {
                passed += u32::from(queue.put(b"x", many(number), 0, Sender::Unproven).is_ok());
                taken.clear();
                queue.take(100, &mut taken);
            }
        }
        assert_eq!(passed, FOLLOWERS.burst);
        assert_eq!(queue.put(b"x", many(900), 0, Sender::Proven), Ok(()));
        assert_eq!(queue.put(b"x", many(900), 0, Sender::Unproven), Ok(()));
        queue.expect(many(1));
        assert_eq!(queue.put(b"x", many(1), 0, Sender::Unproven), Ok(()));
    }

    #[test]
    fn notices_of_unknown_sessions_are_few() {
        let mut queue = ControlQueue::new(1);
        assert_eq!((0..20).filter(|_| queue.may_notify(&many(1), 0)).count(), 1);
        assert!(queue.may_notify(&many(1), 1_000_000_000));
        assert!((0..9000).filter(|&number| queue.may_notify(&many(number + 10), 0)).count() <= 1024);
    }

    #[test]
    fn what_is_of_no_use_is_shown_now_and_then() {
        let mut queue = ControlQueue::new(1);
        let useless = Sender::Useless(Reason::WrapMismatch);
        let passed = (0..1000).filter(|&number| queue.put(b"x", many(number), 0, useless).is_ok()).count();
        assert_eq!(passed, SAMPLES.burst as usize);
        assert_eq!(queue.put(b"x", many(1), 0, useless), Err(Reason::WrapMismatch));
    }
}
