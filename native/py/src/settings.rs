//! Generated from bridged/catalogue/settings.py by scripts/native_tables.py; edit that.

use std::collections::BTreeSet;

use bridged_worker as worker;
use pyo3::prelude::*;

use crate::from_python::{coalesce_rules, priority, Endpoint, TapPort};

/// `bridged.dataplane.contract.DataplaneSettings`.
#[derive(FromPyObject)]
pub struct DataplaneSettings {
    tunnel: String,
    tap: TapPort,
    bind: Option<Endpoint>,
    mss_limit: u16,
    mss_fits_path: bool,
    ageing: f64,
    move_hold: f64,
    fdb_capacity: usize,
    addresses_per_peer: usize,
    replay_window: usize,
    static_key: bool,
    forward_between_peers: bool,
    coalesce: BTreeSet<String>,
    socket_buffer: usize,
    renegotiate_bytes: u64,
    renegotiate_packets: u64,
    wan_mtu: u32,
    answer_too_big: bool,
    workers: usize,
    busy_poll: u32,
    moderation: u32,
    priority: String,
}

impl DataplaneSettings {
    pub fn parse(self, py: Python<'_>) -> PyResult<worker::Settings> {
        Ok(worker::Settings {
            tunnel: self.tunnel,
            tap: self.tap.into(),
            bind: self.bind.map(|bind| bind.parse(py)).transpose()?.map(|bind| bind.address),
            mss_limit: self.mss_limit,
            mss_fits_path: self.mss_fits_path,
            ageing: self.ageing,
            move_hold: self.move_hold,
            fdb_capacity: self.fdb_capacity,
            addresses_per_peer: self.addresses_per_peer,
            replay_window: self.replay_window,
            static_key: self.static_key,
            forward_between_peers: self.forward_between_peers,
            coalesce: coalesce_rules(py, &self.coalesce)?,
            socket_buffer: self.socket_buffer,
            renegotiate_bytes: self.renegotiate_bytes,
            renegotiate_packets: self.renegotiate_packets,
            wan_mtu: self.wan_mtu,
            answer_too_big: self.answer_too_big,
            workers: self.workers,
            busy_poll: self.busy_poll,
            moderation: self.moderation,
            priority: priority(py, &self.priority)?,
        })
    }
}
