//! What the control plane may ask of a data plane, and what it hears back: plain values.
//!
//! Source: `bridged/dataplane/contract`; names, units and meanings are the same, field by field.

mod endpoint;
mod events;
mod keys;
mod limits;
mod peers;
mod snapshots;
mod stations;
mod tap;

pub use bridged_core::coalesce::CoalesceRules;
pub use bridged_core::fdb::{Station, StationEvent, StationEvents};
pub use bridged_core::framing::Framing;
pub use bridged_core::headers::Mac;
pub use bridged_core::limits::LimitTrigger;
pub use bridged_core::priority::Priority;

pub use endpoint::{Carrier, Endpoint};
pub use events::{Event, StreamEnd};
pub use keys::{Cipher, Digest, HmacKeys, Key, KeyFormat};
pub use limits::{
    CONTROL_QUEUE_DATAGRAMS, EARLY_LEAST_OCTETS, EARLY_NANOS, EARLY_OCTETS, EVENT_QUEUE_EVENTS, OCC_OCTETS,
    OCC_WAITING, STRANGER_QUEUE_DATAGRAMS, STREAMS_LINGERING, STREAM_CONTROL_OCTETS, STREAM_GROWN_OCTETS,
    STREAM_LINGER_NANOS, STREAM_PACKET_OCTETS, STREAM_QUEUE_OCTETS, STREAM_STRANGER_OCTETS,
};
pub use peers::{Direction, PeerCounters, PeerHandle, PeerSettings, PeerSnapshot};
pub use snapshots::{Histogram, Snapshot};
pub use stations::FdbEntry;
pub use tap::{coalesce_rules, TapPort};
