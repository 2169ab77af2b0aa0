//! Frames from the LAN to the peers: read the TAP, find the destination, cut, batch by peer, seal, send.
//!
//! In the order in which a frame passes: `reader` (or `priority_reader`), `forwarding`, `peer_batches`; then the
//! transport's batch sender (`transport::udp::batch_sender`).

pub mod forwarding;
pub mod peer_batches;
pub mod pending;
pub mod priority_backlog;
pub mod priority_reader;
pub mod reader;
pub mod scene;
pub mod too_big;
