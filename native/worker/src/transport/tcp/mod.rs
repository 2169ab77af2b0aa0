//! Peers over TCP: connections that the control plane has made, what waits for each, and packets behind their lengths.

pub mod framing;
pub mod receiver;
pub mod stream;
pub mod streams;
