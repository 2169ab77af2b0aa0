//! What the control plane sees and asks for: events, counters, snapshots, timers, answers to strangers.

pub mod answers;
pub mod control_queue;
pub mod control_sender;
pub mod counters;
pub mod events;
pub mod names;
pub mod path_probe;
pub mod schedule;
pub mod snapshots;
pub mod timers;
pub mod wraps;
