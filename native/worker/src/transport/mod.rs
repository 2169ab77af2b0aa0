//! The path to a peer. `seam` says what the rest asks of a transport; `mixed` is that of every tunnel: `udp` and `tcp`.

pub mod endpoint_text;
pub mod mixed;
pub mod mixed_path;
pub mod mixed_receiver;
pub mod mixed_sender;
pub mod mixed_transport;
pub mod seam;
#[cfg(test)]
pub mod stream_transport;
pub mod tcp;
pub mod udp;
