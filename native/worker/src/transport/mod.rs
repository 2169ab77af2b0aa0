//! The path to a peer. `seam` says what the rest asks of a transport; `udp` is the one there is today.

pub mod endpoint_text;
pub mod seam;
#[cfg(test)]
pub mod stream_transport;
pub mod udp;
