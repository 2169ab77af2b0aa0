//! Peers: their settings, counters and figures.

use std::collections::BTreeMap;

use crate::contract::endpoint::Endpoint;

use bridged_core::framing::Framing;

/// Names one peer of one data plane; chosen by the control plane, never reused in a process.
pub type PeerHandle = u64;

/// Which way a packet went: `Receive`: opened from the peer; `Transmit`: sealed to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Direction {
    /// Opened from the peer.
    Receive,
    /// Sealed to it.
    Transmit,
}

impl Direction {
    /// Both, in the order of their index.
    pub const ALL: [Direction; 2] = [Direction::Receive, Direction::Transmit];

    /// Its name in the contract.
    pub fn name(self) -> &'static str {
        match self {
            Direction::Receive => "receive",
            Direction::Transmit => "transmit",
        }
    }
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Its handle.
    pub handle: PeerHandle,
    /// Its authenticated name: two peers of one name may take over each other's endpoint.
    pub name: String,
    /// Where it is.
    pub endpoint: Endpoint,
    /// The DATA_V2 peer id that selects this peer; None: any is taken.
    pub receive_peer_id: Option<u32>,
    /// What we write into DATA_V2; None: send DATA_V1.
    pub transmit_peer_id: Option<u32>,
    /// How payloads are framed, both ways.
    pub framing: Framing,
    /// Bytes of the largest packet; payloads that need more are cut, and joined at the far end. 0: neither.
    pub fragment: usize,
    /// Seconds without sending after which to send a ping.
    pub ping: Option<f64>,
    /// Seconds without an authenticated packet after which to report `PeerExpired`.
    pub ping_restart: Option<f64>,
}

/// Totals since the peer was added; they never fall.
///
/// Keys name direction and kind as the contract does; every direction and kind is there, drops only where
/// there were any.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PeerCounters {
    /// Frames by direction and kind.
    pub frames: BTreeMap<(&'static str, &'static str), u64>,
    /// Their bytes, without FCS and overhead.
    pub bytes: BTreeMap<(&'static str, &'static str), u64>,
    /// Outer UDP payload by direction.
    pub wire_bytes: BTreeMap<&'static str, u64>,
    /// Outer UDP datagrams by direction.
    pub wire_datagrams: BTreeMap<&'static str, u64>,
    /// `skipped`: packet ids of the peer that were jumped over; `late`: packets that came after all.
    pub sequence: BTreeMap<&'static str, u64>,
    /// Lost frames and packets by direction and reason (docs/reference/metrics.md).
    pub drops: BTreeMap<(&'static str, &'static str), u64>,
}

/// One peer now.
#[derive(Debug, Clone, PartialEq)]
pub struct PeerSnapshot {
    /// Its handle.
    pub handle: PeerHandle,
    /// Where it is.
    pub endpoint: Endpoint,
    /// Its totals.
    pub counters: PeerCounters,
    /// Unix seconds of the newest authenticated packet; None: none yet.
    pub last_seen: Option<f64>,
    /// Addresses learned behind it.
    pub fdb_entries: usize,
    /// Of a static key: time (upper 32 bits) and id of the newest packet that was accepted; else 0.
    pub replay_mark: u64,
    /// Of the key that is used up most, 0..1.
    pub packet_id_used_ratio: f64,
    /// Of the key that is used up most, 0..1.
    pub aead_used_ratio: f64,
}
