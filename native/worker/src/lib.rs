//! The native data plane of one tunnel: peers, keys, shared tables, and the threads that move frames.
//!
//! Source: `bridged/dataplane/contract`; `bridged/dataplane/portable` has the same rooms in Python.
//!
//! - `lan_to_wan`: read the TAP, find the destination, cut, batch by peer, seal, send.
//! - `wan_to_lan`: receive, open, find the destination, join, write the TAP.
//! - `policy`: whether a frame may pass and where it goes, one stage for each direction.
//! - `tables`: peers, keys, stations. `transport`: the path to a peer, over UDP or TCP.
//! - `control`: events, timers, snapshots, answers to strangers. `plane`: the contract's verbs, which put it together.
//!
//! The verbs can be called from any thread (`DataPlane: Send + Sync`) and block no longer than a batch of frames takes:
//!
//! ```text
//! DataPlane::new(Settings) -> Result<DataPlane, Error>
//! start(&self) -> Result<(), Error>            stop(&self)
//! attach_tap(&self, TapPort) -> Result<(), Error>
//! add_peer(&self, PeerSettings) -> Result<(), Error>
//! remove_peer(&self, PeerHandle) -> Result<PeerSnapshot, Error>
//! expect_key(&self, PeerHandle, u8) -> Result<(), Error>
//! install_key(&self, PeerHandle, Key) -> Result<(), Error>
//! use_key(&self, PeerHandle, u8) -> Result<(), Error>
//! remove_key(&self, PeerHandle, u8)
//! send_control(&self, &[u8], Endpoint) -> Result<(), Error>
//! adopt_stream(&self, RawFd, Endpoint, &[u8], usize) -> Result<(), Error>
//! close_stream(&self, &Endpoint)
//! answer_resets(&self, Option<Answers>)
//! expect(&self, Endpoint)                      stop_expecting(&self, Endpoint)
//! send_payload(&self, PeerHandle, &[u8]) -> Result<(), Error>
//! probe_path(&self, PeerHandle, &[u8], usize) -> Result<usize, Error>
//! use_path_mtu(&self, PeerHandle, u32) -> Result<(), Error>
//! find_station(&self, Station) -> Option<FdbEntry>
//! install_station(&self, Station, Option<PeerHandle>, bool) -> Result<(), Error>
//! remove_station(&self, Station)               station_events(&self, u64) -> StationEvents
//! event_fd(&self) -> RawFd                     poll_events(&self, usize) -> Vec<Event>
//! snapshot(&self) -> Snapshot                  fdb(&self) -> Vec<FdbEntry>
//! local_endpoint(&self) -> Option<Endpoint>
//! parse_endpoint(host, port) -> Result<SocketAddr, Error>   endpoint_text(&SocketAddr) -> (String, u16)
//! ```
//!
//! Endpoints are never IPv4-mapped: `parse_endpoint` and all events give IPv4 as IPv4. Zones of link-local
//! addresses travel as scope ids and become names in `endpoint_text`.

mod contract;
mod control;
mod error;
mod lan_to_wan;
#[cfg(feature = "model")]
mod model_swap;
#[cfg(all(test, feature = "model"))]
mod models;
mod plane;
mod policy;
mod settings;
mod shared;
mod sync;
mod tables;
mod tap;
#[cfg(test)]
mod test_rig;
mod threads;
mod transport;
mod wan_to_lan;

pub use contract::*;
pub use control::answers::{Answers, CookieSettings};
pub use control::counters::Reason;
pub use control::wraps::WrapSecrets;
pub use error::Error;
pub use plane::DataPlane;
pub use settings::Settings;
pub use tables::keys;
pub use tables::stations::handle_at;
pub use transport::endpoint_text::{endpoint_text, parse_endpoint};
