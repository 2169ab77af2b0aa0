//! The class `DataPlane`: the contract's methods. Every call lets other Python threads run meanwhile.

use bridged_worker as worker;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::from_python::{DataKey, Endpoint, PeerSettings, ResetAnswers, TapPort};
use crate::settings::DataplaneSettings;
use crate::to_python;
use crate::to_python::refused;

/// One tunnel's frames in threads of its own; see bridged/dataplane/contract/verbs.py.
#[pyclass(frozen, module = "bridged._native")]
pub struct DataPlane {
    inner: worker::DataPlane,
}

impl DataPlane {
    fn call<T: Send>(
        &self,
        py: Python<'_>,
        work: impl FnOnce(&worker::DataPlane) -> Result<T, worker::Error> + Send,
    ) -> PyResult<T> {
        py.detach(|| work(&self.inner)).map_err(|error| refused(py, &error))
    }
}

#[pymethods]
impl DataPlane {
    #[new]
    fn new(py: Python<'_>, settings: DataplaneSettings) -> PyResult<Self> {
        let settings = settings.parse(py)?;
        let inner = py.detach(|| worker::DataPlane::new(settings)).map_err(|error| refused(py, &error))?;
        Ok(Self { inner })
    }

    fn start(&self, py: Python<'_>) -> PyResult<()> {
        self.call(py, worker::DataPlane::start)
    }

    fn stop(&self, py: Python<'_>) {
        py.detach(|| self.inner.stop());
    }

    fn local_endpoint(&self) -> Option<(String, u16, &'static str)> {
        self.inner.local_endpoint().as_ref().map(to_python::endpoint)
    }

    fn attach_tap(&self, py: Python<'_>, tap: TapPort) -> PyResult<()> {
        self.call(py, |inner| inner.attach_tap(tap.into()))
    }

    fn use_socket(&self, py: Python<'_>, descriptor: Option<i32>) -> PyResult<()> {
        self.call(py, |inner| inner.use_socket(descriptor))
    }

    fn adopt_stream(
        &self,
        py: Python<'_>,
        descriptor: i32,
        endpoint: Endpoint,
        received: &[u8],
        packet_octets: usize,
    ) -> PyResult<()> {
        let endpoint = endpoint.parse(py)?;
        self.call(py, |inner| inner.adopt_stream(descriptor, endpoint, received, packet_octets))
    }

    fn close_stream(&self, py: Python<'_>, endpoint: Endpoint) -> PyResult<()> {
        let endpoint = endpoint.parse(py)?;
        py.detach(|| self.inner.close_stream(&endpoint));
        Ok(())
    }

    fn inherit_sockets(&self, py: Python<'_>, descriptors: Vec<i32>) -> PyResult<()> {
        self.call(py, |inner| inner.inherit_sockets(&descriptors))
    }

    fn socket_descriptors(&self) -> Vec<i32> {
        self.inner.socket_descriptors()
    }

    fn hold(&self, py: Python<'_>, lan: bool, wan: bool) {
        py.detach(|| self.inner.hold(lan, wan));
    }

    fn ask_threads(&self, py: Python<'_>) {
        py.detach(|| self.inner.ask_threads());
    }

    fn silent_threads(&self) -> Vec<String> {
        self.inner.silent_threads()
    }

    fn use_sizes(&self, py: Python<'_>, wan_mtu: u32, mss_limit: u16) -> PyResult<()> {
        self.call(py, |inner| inner.use_sizes(wan_mtu, mss_limit))
    }

    fn add_peer(&self, py: Python<'_>, peer: PeerSettings) -> PyResult<()> {
        let peer = peer.parse(py)?;
        self.call(py, |inner| inner.add_peer(peer))
    }

    fn remove_peer<'py>(&self, py: Python<'py>, handle: worker::PeerHandle) -> PyResult<Bound<'py, PyDict>> {
        let last = self.call(py, |inner| inner.remove_peer(handle))?;
        to_python::peer_snapshot(py, last)
    }

    fn expect_key(&self, py: Python<'_>, handle: worker::PeerHandle, key_id: u8) -> PyResult<()> {
        self.call(py, |inner| inner.expect_key(handle, key_id))
    }

    fn install_key(&self, py: Python<'_>, handle: worker::PeerHandle, key: &Bound<'_, PyAny>) -> PyResult<()> {
        let key = key.extract::<DataKey>()?.parse(key)?;
        self.call(py, |inner| inner.install_key(handle, key))
    }

    fn use_key(&self, py: Python<'_>, handle: worker::PeerHandle, key_id: u8) -> PyResult<()> {
        self.call(py, |inner| inner.use_key(handle, key_id))
    }

    fn remove_key(&self, py: Python<'_>, handle: worker::PeerHandle, key_id: u8) {
        py.detach(|| self.inner.remove_key(handle, key_id));
    }

    fn answer_resets(&self, py: Python<'_>, answers: Option<Bound<'_, PyAny>>) -> PyResult<()> {
        let answers = match answers {
            Some(object) => Some(object.extract::<ResetAnswers>()?.parse(&object)?),
            None => None,
        };
        py.detach(|| self.inner.answer_resets(answers));
        Ok(())
    }

    fn expect(&self, py: Python<'_>, endpoint: Endpoint) -> PyResult<()> {
        let endpoint = endpoint.parse(py)?;
        py.detach(|| self.inner.expect(endpoint));
        Ok(())
    }

    fn stop_expecting(&self, py: Python<'_>, endpoint: Endpoint) -> PyResult<()> {
        let endpoint = endpoint.parse(py)?;
        py.detach(|| self.inner.stop_expecting(endpoint));
        Ok(())
    }

    fn send_control(&self, py: Python<'_>, datagram: &[u8], destination: Endpoint) -> PyResult<()> {
        let destination = destination.parse(py)?;
        self.call(py, |inner| inner.send_control(datagram, destination))
    }

    fn send_payload(&self, py: Python<'_>, handle: worker::PeerHandle, payload: &[u8]) -> PyResult<()> {
        self.call(py, |inner| inner.send_payload(handle, payload))
    }

    fn probe_path(&self, py: Python<'_>, handle: worker::PeerHandle, payload: &[u8], octets: usize) -> PyResult<usize> {
        self.call(py, |inner| inner.probe_path(handle, payload, octets))
    }

    fn use_path_mtu(&self, py: Python<'_>, handle: worker::PeerHandle, octets: u32) -> PyResult<()> {
        self.call(py, |inner| inner.use_path_mtu(handle, octets))
    }

    fn event_fd(&self) -> i32 {
        self.inner.event_fd()
    }

    fn poll_events<'py>(&self, py: Python<'py>, limit: usize) -> PyResult<Vec<Bound<'py, PyTuple>>> {
        let events = self.inner.poll_events(limit);
        events.into_iter().map(|event| to_python::event(py, event)).collect()
    }

    fn snapshot<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyDict>> {
        let figures = py.detach(|| self.inner.snapshot());
        to_python::snapshot(py, figures)
    }

    fn fdb<'py>(&self, py: Python<'py>) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let entries = py.detach(|| self.inner.fdb());
        entries.iter().map(|entry| to_python::fdb_entry(py, entry)).collect()
    }

    fn find_station(&self, py: Python<'_>, vlan: u16, mac: &[u8]) -> Option<(Option<worker::PeerHandle>, f64, bool)> {
        let station = station(vlan, mac).ok()?;
        let entry = py.detach(|| self.inner.find_station(station))?;
        Some((entry.handle, entry.age, entry.is_static))
    }

    fn install_station(
        &self,
        py: Python<'_>,
        vlan: u16,
        mac: &[u8],
        handle: Option<worker::PeerHandle>,
        is_static: bool,
    ) -> PyResult<()> {
        let station = station(vlan, mac).map_err(|error| refused(py, &error))?;
        self.call(py, |inner| inner.install_station(station, handle, is_static))
    }

    fn remove_station(&self, py: Python<'_>, vlan: u16, mac: &[u8]) {
        if let Ok(station) = station(vlan, mac) {
            py.detach(|| self.inner.remove_station(station));
        }
    }

    fn station_events<'py>(&self, py: Python<'py>, after: u64) -> PyResult<(Vec<Bound<'py, PyAny>>, u64, u64)> {
        let found = py.detach(|| self.inner.station_events(after));
        let events = found.events.iter().map(|event| to_python::station_event(py, event));
        Ok((events.collect::<PyResult<Vec<_>>>()?, found.next, found.lost))
    }
}

fn station(vlan: u16, mac: &[u8]) -> Result<worker::Station, worker::Error> {
    let octets: [u8; 6] =
        mac.try_into().map_err(|_| worker::Error::BadStation(format!("{mac:02x?} in VLAN {vlan}")))?;
    Ok(worker::Station::new(vlan, worker::Mac::new(octets)))
}
