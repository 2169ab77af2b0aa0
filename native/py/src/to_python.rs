//! From the worker's values to plain Python ones: tuples, dicts, bytes. native.py makes the contract's of them.

use bridged_worker as worker;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyTuple, PyType};
use pyo3::IntoPyObjectExt;

/// `DataplaneError` with the error's code.
pub fn refused(py: Python<'_>, error: &worker::Error) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "bridged.errors", "DataplaneError") {
        Ok(class) => PyErr::from_type(class.clone(), (error.code(), error.to_string())),
        Err(missing) => missing,
    }
}

/// `(host, port, transport)`.
pub fn endpoint(endpoint: &worker::Endpoint) -> (String, u16, &'static str) {
    let (host, port) = worker::endpoint_text(endpoint);
    (host, port, endpoint.carrier.name())
}

/// The event's name and its values, in the order of the contract's fields.
pub fn event<'py>(py: Python<'py>, event: worker::Event) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        worker::Event::ControlReceived { datagram, source } => {
            ("control_received", PyBytes::new(py, &datagram), endpoint(&source)).into_pyobject(py)
        }
        worker::Event::StreamClosed { endpoint: from, reason } => {
            ("stream_closed", endpoint(&from), reason.name()).into_pyobject(py)
        }
        worker::Event::PeerFloated { handle, endpoint: now, previous } => {
            ("peer_floated", handle, endpoint(&now), endpoint(&previous)).into_pyobject(py)
        }
        worker::Event::FramingRefused { handle, is_compressed } => {
            ("framing_refused", handle, is_compressed).into_pyobject(py)
        }
        worker::Event::SessionUnknown { handle } => ("session_unknown", handle).into_pyobject(py),
        worker::Event::PeerExpired { handle } => ("peer_expired", handle).into_pyobject(py),
        worker::Event::KeyNearLimit { handle, key_id, trigger } => {
            ("key_near_limit", handle, key_id, trigger.name()).into_pyobject(py)
        }
        worker::Event::OccReceived { handle, payload, left_out } => {
            ("occ_received", handle, PyBytes::new(py, &payload), left_out).into_pyobject(py)
        }
        worker::Event::StationMoved { station, previous, current } => {
            ("station_moved", plain(py, station), previous, current).into_pyobject(py)
        }
        worker::Event::TapFailed { number } => ("tap_failed", number).into_pyobject(py),
    }
}

pub fn peer_snapshot<'py>(py: Python<'py>, peer: worker::PeerSnapshot) -> PyResult<Bound<'py, PyDict>> {
    let counters = PyDict::new(py);
    counters.set_item("frames", peer.counters.frames)?;
    counters.set_item("bytes", peer.counters.bytes)?;
    counters.set_item("wire_bytes", peer.counters.wire_bytes)?;
    counters.set_item("wire_datagrams", peer.counters.wire_datagrams)?;
    counters.set_item("sequence", peer.counters.sequence)?;
    counters.set_item("drops", peer.counters.drops)?;
    let made = PyDict::new(py);
    made.set_item("handle", peer.handle)?;
    made.set_item("endpoint", endpoint(&peer.endpoint))?;
    made.set_item("counters", counters)?;
    made.set_item("last_seen", peer.last_seen)?;
    made.set_item("fdb_entries", peer.fdb_entries)?;
    made.set_item("replay_mark", peer.replay_mark)?;
    made.set_item("packet_id_used_ratio", peer.packet_id_used_ratio)?;
    made.set_item("aead_used_ratio", peer.aead_used_ratio)?;
    Ok(made)
}

pub fn snapshot<'py>(py: Python<'py>, figures: worker::Snapshot) -> PyResult<Bound<'py, PyDict>> {
    let peers = figures.peers.into_iter().map(|peer| peer_snapshot(py, peer)).collect::<PyResult<Vec<_>>>()?;
    let histograms = PyDict::new(py);
    for (name, histogram) in figures.histograms {
        histograms.set_item(
            name,
            (PyTuple::new(py, histogram.bounds)?, PyTuple::new(py, histogram.counts)?, histogram.total),
        )?;
    }
    let made = PyDict::new(py);
    made.set_item("dataplane", figures.dataplane)?;
    made.set_item("aead", figures.aead)?;
    made.set_item("workers", figures.workers)?;
    made.set_item("peers", peers)?;
    made.set_item("drops", figures.drops)?;
    made.set_item("fdb_entries", figures.fdb_entries)?;
    made.set_item("fdb_capacity", figures.fdb_capacity)?;
    made.set_item("counts", figures.counts)?;
    made.set_item("offloads", figures.offloads)?;
    made.set_item("offload_fallbacks", figures.offload_fallbacks)?;
    made.set_item("queues", figures.queues)?;
    made.set_item("histograms", histograms)?;
    made.set_item("thread_cpu", figures.thread_cpu)?;
    Ok(made)
}

/// `(station, handle, age, is_static)`.
pub fn fdb_entry<'py>(py: Python<'py>, entry: &worker::FdbEntry) -> PyResult<Bound<'py, PyAny>> {
    (plain(py, entry.station), entry.handle, entry.age, entry.is_static).into_bound_py_any(py)
}

/// `(change, vlan, mac, handle)`.
pub fn station_event<'py>(py: Python<'py>, event: &worker::StationEvent) -> PyResult<Bound<'py, PyAny>> {
    let (vlan, mac) = plain(py, event.station);
    (event.change.name(), vlan, mac, worker::handle_at(event.port)).into_bound_py_any(py)
}

/// `(vlan, mac)`.
fn plain(py: Python<'_>, station: worker::Station) -> (u16, Bound<'_, PyBytes>) {
    (station.vlan(), PyBytes::new(py, &station.mac().octets()))
}
