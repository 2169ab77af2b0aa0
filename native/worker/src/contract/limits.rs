//! How much a data plane keeps of what others send, and for how long.

use bridged_core::{Nanos, SECOND};

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
/// Bytes that may wait for one TCP connection; frames beyond that are dropped.
pub const STREAM_QUEUE_OCTETS: usize = 256 * 1024;
/// Bytes of control packets that may wait in addition; with more the connection is closed.
pub const STREAM_CONTROL_OCTETS: usize = 128 * 1024;
/// Bytes of the longest packet in a stream.
pub const STREAM_PACKET_OCTETS: usize = u16::MAX as usize;
/// Bytes that may wait for a connection of a stranger; one for which more wait is closed.
pub const STREAM_STRANGER_OCTETS: usize = 32 * 1024;
/// From this receive buffer on the kernel finds the size by itself, once a stranger has become a peer.
pub const STREAM_GROWN_OCTETS: u32 = 64 * 1024;
/// How long a connection that is about to close may take for what waits.
pub const STREAM_LINGER_NANOS: Nanos = 5 * SECOND;
/// Most connections that are about to close.
pub const STREAMS_LINGERING: usize = 256;
