//! From the contract's values (bridged/dataplane/contract) to those of the worker, attribute by attribute.

use std::collections::BTreeSet;

use bridged_worker as worker;
use pyo3::prelude::*;
use zeroize::Zeroizing;

use crate::to_python::refused;

/// `bridged.addresses.Endpoint`.
#[derive(FromPyObject)]
pub struct Endpoint {
    host: String,
    port: u16,
    transport: String,
}

impl Endpoint {
    pub fn parse(&self, py: Python<'_>) -> PyResult<worker::Endpoint> {
        let address = worker::parse_endpoint(&self.host, self.port).map_err(|error| refused(py, &error))?;
        let carrier = worker::Carrier::parse(&self.transport).ok_or_else(|| {
            refused(py, &worker::Error::BadSetting(format!("transport {:?} is not udp or tcp", self.transport)))
        })?;
        Ok(worker::Endpoint { address, carrier })
    }
}

/// `bridged.addresses.MacAddress`.
#[derive(FromPyObject)]
struct MacAddress {
    octets: [u8; 6],
}

#[derive(FromPyObject)]
pub struct TapPort {
    fds: Vec<i32>,
    writer: Option<i32>,
    name: String,
    mac: MacAddress,
    mtu: u32,
    virtio_header_size: usize,
    offloads: BTreeSet<String>,
}

impl From<TapPort> for worker::TapPort {
    fn from(tap: TapPort) -> Self {
        worker::TapPort {
            fds: tap.fds,
            writer: tap.writer,
            name: tap.name,
            mac: tap.mac.octets,
            mtu: tap.mtu,
            virtio_header_size: tap.virtio_header_size,
            offloads: tap.offloads.into_iter().collect(),
        }
    }
}

/// The kinds of frames that may be joined.
pub fn coalesce_rules(py: Python<'_>, kinds: &BTreeSet<String>) -> PyResult<worker::CoalesceRules> {
    worker::coalesce_rules(kinds.iter().map(String::as_str)).ok_or_else(|| {
        let text = format!("coalesce: {kinds:?} are not all of tcp4, tcp6, udp4, udp6");
        refused(py, &worker::Error::BadSetting(text))
    })
}

/// `off`, `pcp` or `dscp`.
pub fn priority(py: Python<'_>, word: &str) -> PyResult<worker::Priority> {
    worker::Priority::parse(word)
        .ok_or_else(|| refused(py, &worker::Error::BadSetting(format!("priority: {word:?} is not off, pcp or dscp"))))
}

#[derive(FromPyObject)]
pub struct PeerSettings {
    handle: worker::PeerHandle,
    name: String,
    endpoint: Endpoint,
    receive_peer_id: Option<u32>,
    transmit_peer_id: Option<u32>,
    framing: String,
    fragment: usize,
    ping: Option<f64>,
    ping_restart: Option<f64>,
}

impl PeerSettings {
    pub fn parse(self, py: Python<'_>) -> PyResult<worker::PeerSettings> {
        let framing = worker::Framing::parse(&self.framing).ok_or_else(|| {
            refused(py, &worker::Error::BadSetting(format!("framing: {:?} is unknown", self.framing)))
        })?;
        Ok(worker::PeerSettings {
            handle: self.handle,
            name: self.name,
            endpoint: self.endpoint.parse(py)?,
            receive_peer_id: self.receive_peer_id,
            transmit_peer_id: self.transmit_peer_id,
            framing,
            fragment: self.fragment,
            ping: self.ping,
            ping_restart: self.ping_restart,
        })
    }
}

/// How to answer hard resets: a wrap's secrets and those of cookies.
#[derive(FromPyObject)]
pub struct ResetAnswers {
    slot_seconds: u64,
}

impl ResetAnswers {
    /// Keys made of this and of the secrets of `object`, which is the same Python object.
    pub fn parse(self, object: &Bound<'_, PyAny>) -> PyResult<worker::Answers> {
        let wrap = wrap_secrets(&object.getattr("wrap")?)?;
        let cookie = worker::CookieSettings { secret: octets(object, "secret")?, slot_seconds: self.slot_seconds };
        worker::Answers::new(&wrap, &cookie).map_err(|error| refused(object.py(), &error))
    }
}

fn octets(object: &Bound<'_, PyAny>, name: &str) -> PyResult<Zeroizing<Vec<u8>>> {
    Ok(Zeroizing::new(object.getattr(name)?.extract::<Vec<u8>>()?))
}

/// `bridged.dataplane.native._PlainWrap`; one for old clients may be inside.
fn wrap_secrets(object: &Bound<'_, PyAny>) -> PyResult<worker::WrapSecrets> {
    let old = object.getattr("old")?;
    Ok(worker::WrapSecrets {
        name: object.getattr("name")?.extract()?,
        digest: object.getattr("digest")?.extract()?,
        send: octets(object, "send")?,
        receive: octets(object, "receive")?,
        send_cipher: octets(object, "send_cipher")?,
        receive_cipher: octets(object, "receive_cipher")?,
        old: if old.is_none() { None } else { Some(Box::new(wrap_secrets(&old)?)) },
    })
}

/// `bridged.protocol.keys.cipher.Cipher`.
#[derive(FromPyObject)]
struct Cipher {
    value: String,
}

/// `bridged.protocol.keys.key_derivation.DataKey`, without its secrets.
#[derive(FromPyObject)]
pub struct DataKey {
    key_id: u8,
    cipher: Cipher,
    digest: Option<String>,
    is_epoch: bool,
    static_time: Option<u32>,
    static_mark: u64,
}

impl DataKey {
    /// The key, with the secrets of `object`, which is the same Python object.
    pub fn parse(self, object: &Bound<'_, PyAny>) -> PyResult<worker::Key> {
        let bad = |text: String| refused(object.py(), &worker::Error::BadSetting(text));
        let cipher = worker::Cipher::parse(&self.cipher.value)
            .ok_or_else(|| bad(format!("cipher {} is not for data packets", self.cipher.value)))?;
        // One attribute at a time, so that each copy is under the guard that wipes it.
        let octets = |name: &str| -> PyResult<Zeroizing<Vec<u8>>> {
            Ok(Zeroizing::new(object.getattr(name)?.extract::<Vec<u8>>()?))
        };
        let iv = |name: &str| -> PyResult<Zeroizing<[u8; 8]>> {
            let octets = octets(name)?;
            let octets = octets.first_chunk::<8>().ok_or_else(|| bad(format!("{name} has fewer than 8 bytes")))?;
            Ok(Zeroizing::new(*octets))
        };
        let unused = || Ok(Zeroizing::new([0; 8]));
        let format = match &self.digest {
            None if self.is_epoch => worker::KeyFormat::Epoch,
            None => worker::KeyFormat::Aead,
            Some(name) => {
                let hmacs = worker::HmacKeys {
                    digest: worker::Digest::parse(name).ok_or_else(|| bad(format!("digest {name} is unknown")))?,
                    send: octets("send_hmac")?,
                    receive: octets("receive_hmac")?,
                };
                match self.static_time {
                    Some(time) => {
                        let origin = octets("static_origin")?;
                        worker::KeyFormat::Static { hmacs, time, mark: self.static_mark, origin }
                    }
                    None => worker::KeyFormat::Cbc(hmacs),
                }
            }
        };
        let has_ivs = matches!(format, worker::KeyFormat::Aead);
        Ok(worker::Key {
            key_id: self.key_id,
            cipher,
            format,
            send_key: octets("send_key")?,
            send_iv: if has_ivs { iv("send_iv") } else { unused() }?,
            receive_key: octets("receive_key")?,
            receive_iv: if has_ivs { iv("receive_iv") } else { unused() }?,
        })
    }
}
