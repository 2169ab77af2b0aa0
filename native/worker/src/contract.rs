//! What the control plane may ask of a data plane, and what it hears back: plain values.
//!
//! Source: `bridged/dataplane/contract.py`; names, units and meanings are the same, field by field.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::os::fd::RawFd;

use bridged_core::{Nanos, SECOND};
use zeroize::Zeroizing;

pub use bridged_core::coalesce::CoalesceRules;
pub use bridged_core::fdb::{Station, StationEvent, StationEvents};
pub use bridged_core::headers::Mac;
pub use bridged_core::limits::LimitTrigger;
pub use bridged_core::priority::Priority;

/// Names one peer of one data plane; chosen by the control plane, never reused in a process.
pub type PeerHandle = u64;

/// Most events that wait and may be dropped (`OccReceived`, `StationMoved`). State events are never dropped.
pub const EVENT_QUEUE_EVENTS: usize = 1024;
/// Most OCC messages of one peer that wait.
pub const OCC_WAITING: usize = 8;
/// Bytes of the longest OCC message that is handed up: an options string has 1024 at most.
pub const OCC_OCTETS: usize = 1280;
/// Bytes of packets that one peer may have waiting for a key.
pub const EARLY_OCTETS: usize = 256 * 1024;
/// What packets of one read count at least: keeping them costs as much, however short they are.
pub const EARLY_LEAST_OCTETS: usize = 256;
/// Packets that waited longer for their key are dropped.
pub const EARLY_NANOS: Nanos = SECOND;
/// Most control datagrams of peers and of handshakes that wait.
pub const CONTROL_QUEUE_DATAGRAMS: usize = 2048;
/// Most control datagrams of strangers that wait.
pub const STRANGER_QUEUE_DATAGRAMS: usize = 2048;

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

/// The open TAP adapter that a data plane reads and writes; the descriptors stay the caller's
/// (they are duplicated, so that the caller may close its own at any time).
///
/// One descriptor is one queue, and worker `i` serves queue `i`: there must not be more queues than workers.
#[derive(Debug, Clone)]
pub struct TapPort {
    /// The queues; one at least, opened non-blocking.
    pub fds: Vec<RawFd>,
    /// A further queue, out of service, that takes frames for the kernel; None: `fds` take them.
    pub writer: Option<RawFd>,
    /// The adapter's name, by which the kernel's own counters are read.
    pub name: String,
    /// Its MAC address.
    pub mac: [u8; 6],
    /// Bytes of a frame's payload.
    pub mtu: u32,
    /// 0 (none), 10 or 12 bytes.
    pub virtio_header_size: usize,
    /// What the kernel accepted: `csum`, `tso4`, `tso6`, `tso_ecn`, `uso4`, `uso6`.
    pub offloads: Vec<String>,
}

/// The rules by which frames are joined on their way into the TAP, from the contract's names: `tcp4`, `tcp6`,
/// `udp4`, `udp6`. None: one of the names is no such kind.
pub fn coalesce_rules<'a>(kinds: impl IntoIterator<Item = &'a str>) -> Option<CoalesceRules> {
    let mut rules = CoalesceRules::NONE;
    for kind in kinds {
        match kind {
            "tcp4" => rules.tcp4 = true,
            "tcp6" => rules.tcp6 = true,
            "udp4" => rules.udp4 = true,
            "udp6" => rules.udp6 = true,
            _ => return None,
        }
    }
    Some(rules)
}

/// One peer.
#[derive(Debug, Clone)]
pub struct PeerSettings {
    /// Its handle.
    pub handle: PeerHandle,
    /// Its authenticated name: two peers of one name may take over each other's endpoint.
    pub name: String,
    /// Where it is.
    pub endpoint: SocketAddr,
    /// The DATA_V2 peer id that selects this peer; None: any is taken.
    pub receive_peer_id: Option<u32>,
    /// What we write into DATA_V2; None: send DATA_V1.
    pub transmit_peer_id: Option<u32>,
    /// Seconds without sending after which to send a ping.
    pub ping: Option<f64>,
    /// Seconds without an authenticated packet after which to report `PeerExpired`.
    pub ping_restart: Option<f64>,
}

/// An AEAD cipher.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cipher {
    /// AES-256-GCM.
    Aes256Gcm,
    /// AES-192-GCM.
    Aes192Gcm,
    /// AES-128-GCM.
    Aes128Gcm,
    /// CHACHA20-POLY1305.
    ChaCha20Poly1305,
}

impl Cipher {
    /// Its name on the wire.
    pub fn name(self) -> &'static str {
        match self {
            Cipher::Aes256Gcm => "AES-256-GCM",
            Cipher::Aes192Gcm => "AES-192-GCM",
            Cipher::Aes128Gcm => "AES-128-GCM",
            Cipher::ChaCha20Poly1305 => "CHACHA20-POLY1305",
        }
    }

    /// From its name on the wire, in upper case.
    pub fn parse(name: &str) -> Option<Cipher> {
        match name {
            "AES-256-GCM" => Some(Cipher::Aes256Gcm),
            "AES-192-GCM" => Some(Cipher::Aes192Gcm),
            "AES-128-GCM" => Some(Cipher::Aes128Gcm),
            "CHACHA20-POLY1305" => Some(Cipher::ChaCha20Poly1305),
            _ => None,
        }
    }

    /// Bytes of its key.
    pub fn key_length(self) -> usize {
        match self {
            Cipher::Aes256Gcm | Cipher::ChaCha20Poly1305 => 32,
            Cipher::Aes192Gcm => 24,
            Cipher::Aes128Gcm => 16,
        }
    }

    /// Subject to the AEAD usage limit (docs/protocol/data.md#3-3).
    pub fn is_aes_gcm(self) -> bool {
        self != Cipher::ChaCha20Poly1305
    }
}

/// Keys of one key id, seen from this end. Wiped when dropped; shows no secret.
pub struct Key {
    /// 0..=7.
    pub key_id: u8,
    /// The cipher of both directions.
    pub cipher: Cipher,
    /// `cipher.key_length()` bytes.
    pub send_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce.
    pub send_iv: Zeroizing<[u8; 8]>,
    /// `cipher.key_length()` bytes.
    pub receive_key: Zeroizing<Vec<u8>>,
    /// The implicit part of the nonce.
    pub receive_iv: Zeroizing<[u8; 8]>,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter
            .debug_struct("Key")
            .field("key_id", &self.key_id)
            .field("cipher", &self.cipher)
            .finish_non_exhaustive()
    }
}

/// What the control plane hears.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// A datagram with a control opcode (or an unknown one); content unchecked, from anybody.
    ControlReceived {
        /// At most 4096 bytes.
        datagram: Vec<u8>,
        /// Where it came from.
        source: SocketAddr,
    },
    /// An authenticated, not replayed packet came from a new endpoint; the data plane already sends there.
    PeerFloated {
        /// Which peer.
        handle: PeerHandle,
        /// Where it is now.
        endpoint: SocketAddr,
        /// Where it was.
        previous: SocketAddr,
    },
    /// A server said that it knows no session of ours. Anybody can forge that.
    SessionUnknown {
        /// The peer that it came from.
        handle: PeerHandle,
    },
    /// Nothing authenticated was received for `ping_restart`; reported once.
    PeerExpired {
        /// Which peer.
        handle: PeerHandle,
    },
    /// A key should be replaced.
    KeyNearLimit {
        /// Which peer.
        handle: PeerHandle,
        /// Which key.
        key_id: u8,
        /// Why.
        trigger: LimitTrigger,
    },
    /// An OCC message (magic included) that authenticated.
    OccReceived {
        /// Which peer.
        handle: PeerHandle,
        /// The message.
        payload: Vec<u8>,
    },
    /// A station is now behind another port (None: the TAP). At most a few a second are reported.
    StationMoved {
        /// The station.
        station: Station,
        /// Where it was.
        previous: Option<PeerHandle>,
        /// Where it is.
        current: Option<PeerHandle>,
    },
    /// The TAP cannot be read or written any more (it vanished); traffic waits for `attach_tap`.
    TapFailed {
        /// The errno.
        number: i32,
    },
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
    pub endpoint: SocketAddr,
    /// Its totals.
    pub counters: PeerCounters,
    /// Unix seconds of the newest authenticated packet; None: none yet.
    pub last_seen: Option<f64>,
    /// Addresses learned behind it.
    pub fdb_entries: usize,
    /// Of the key that is used up most, 0..1.
    pub packet_id_used_ratio: f64,
    /// Of the key that is used up most, 0..1.
    pub aead_used_ratio: f64,
}

/// `counts[i]` observations in (`bounds[i-1]`, `bounds[i]`], the last one above all; `total` sums them.
#[derive(Debug, Clone, PartialEq)]
pub struct Histogram {
    /// Upper bounds.
    pub bounds: Vec<f64>,
    /// One more than bounds.
    pub counts: Vec<u64>,
    /// Sum of all that was observed.
    pub total: f64,
}

/// All figures of one data plane at one moment; taking it never blocks traffic.
#[derive(Debug, Clone, PartialEq)]
pub struct Snapshot {
    /// `native`.
    pub dataplane: &'static str,
    /// Cipher of the newest key; empty: none yet.
    pub aead: &'static str,
    /// Pairs of threads.
    pub workers: usize,
    /// All peers, in order of their handles.
    pub peers: Vec<PeerSnapshot>,
    /// Lost frames and packets by direction and reason, those of no peer included.
    pub drops: BTreeMap<(&'static str, &'static str), u64>,
    /// Addresses known.
    pub fdb_entries: usize,
    /// Addresses at most.
    pub fdb_capacity: usize,
    /// Totals by family and name (bridged/catalogue/counters.py).
    pub counts: BTreeMap<&'static str, BTreeMap<&'static str, u64>>,
    /// By name (bridged/catalogue/figures.py), as queues and histograms.
    pub offloads: BTreeMap<&'static str, bool>,
    /// By (offload, cause).
    pub offload_fallbacks: BTreeMap<(&'static str, &'static str), u64>,
    /// (Depth, capacity).
    pub queues: BTreeMap<&'static str, (usize, usize)>,
    /// Sizes of batches.
    pub histograms: BTreeMap<&'static str, Histogram>,
    /// Processor seconds by thread name: `tap-0`, `wire-0`, ..., `timer`.
    pub thread_cpu: BTreeMap<String, f64>,
}

/// A known station; `handle` None: behind the TAP.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FdbEntry {
    /// The station.
    pub station: Station,
    /// Its peer.
    pub handle: Option<PeerHandle>,
    /// Seconds since it was last heard; 0 for a static one.
    pub age: f64,
    /// It neither ages nor moves.
    pub is_static: bool,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_become_rules_and_unknown_ones_are_refused() {
        assert_eq!(coalesce_rules([]), Some(CoalesceRules::NONE));
        let tcp = coalesce_rules(["tcp6", "tcp4"]).unwrap();
        assert_eq!(tcp, CoalesceRules { tcp4: true, tcp6: true, ..CoalesceRules::NONE });
        let udp = coalesce_rules(["udp4"]).unwrap();
        assert_eq!(udp, CoalesceRules { udp4: true, ..CoalesceRules::NONE });
        assert_eq!(coalesce_rules(["tcp4", "sctp4"]), None);
    }
}
