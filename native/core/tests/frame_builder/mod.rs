//! Frames for tests, made the slow and obvious way: one field after the other, checksums word by word.
#![allow(dead_code, clippy::unwrap_used)]

use bridged_core::vnet::{VnetHeader, GSO_TCPV4, GSO_TCPV6, GSO_UDP_L4, NEEDS_CSUM};

pub const FIN: u8 = 1;
pub const PSH: u8 = 8;
pub const ACK: u8 = 16;
pub const ECE: u8 = 64;
pub const CWR: u8 = 128;

/// A flow's constant parts and where it stands.
#[derive(Debug, Clone)]
pub struct Packet {
    pub tags: Vec<[u8; 4]>,
    pub is_v4: bool,
    pub is_tcp: bool,
    /// IPv4 options or IPv6 extension headers (the first byte of which is replaced by the next header).
    pub extra: Vec<u8>,
    pub tos: u8,
    pub ttl: u8,
    pub identity: u16,
    pub fragment: u16,
    pub address: u8,
    pub port: u16,
    pub sequence: u32,
    pub acknowledgement: u32,
    pub flags: u8,
    pub window: u16,
    pub options: Vec<u8>,
    pub payload: Vec<u8>,
}

impl Default for Packet {
    fn default() -> Self {
        Self {
            tags: Vec::new(),
            is_v4: true,
            is_tcp: true,
            extra: Vec::new(),
            tos: 0,
            ttl: 64,
            identity: 0x1234,
            fragment: 0x4000,
            address: 1,
            port: 5201,
            sequence: 0xFFFF_F000,
            acknowledgement: 7,
            flags: ACK,
            window: 502,
            options: vec![1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2],
            payload: vec![0x55; 1000],
        }
    }
}

pub fn slow_sum(data: &[u8]) -> u32 {
    let mut total = 0u32;
    for pair in data.chunks(2) {
        total += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        total = (total & 0xFFFF) + (total >> 16);
    }
    total
}

/// The checksum of a sum, 0 rather than FFFF.
fn checksum(total: u32) -> u16 {
    let total = (total & 0xFFFF) + (total >> 16);
    let total = (total & 0xFFFF) + (total >> 16);
    if total == 0 {
        0
    } else {
        !(total as u16)
    }
}

impl Packet {
    pub fn network(&self) -> usize {
        14 + 4 * self.tags.len()
    }

    pub fn transport(&self) -> usize {
        self.network() + if self.is_v4 { 20 } else { 40 } + self.extra.len()
    }

    pub fn header_len(&self) -> usize {
        self.transport() + if self.is_tcp { 20 + self.options.len() } else { 8 }
    }

    fn pseudo(&self) -> u32 {
        let octets = self.header_len() - self.transport() + self.payload.len();
        let addresses = if self.is_v4 { self.addresses_v4() } else { self.addresses_v6() };
        let protocol = if self.is_tcp { 6 } else { 17 };
        let mut total = slow_sum(&addresses) + protocol + (octets as u32 >> 16) + (octets as u32 & 0xFFFF);
        while total > 0xFFFF {
            total = (total & 0xFFFF) + (total >> 16);
        }
        total
    }

    fn addresses_v4(&self) -> Vec<u8> {
        vec![10, 0, 0, self.address, 10, 0, 1, 200]
    }

    fn addresses_v6(&self) -> Vec<u8> {
        let mut octets = vec![0xFD; 15];
        octets.push(self.address);
        octets.extend([0xFE; 15]);
        octets.push(200);
        octets
    }

    fn transport_header(&self) -> Vec<u8> {
        let mut head = Vec::new();
        head.extend(self.port.to_be_bytes());
        head.extend(443u16.to_be_bytes());
        if self.is_tcp {
            head.extend(self.sequence.to_be_bytes());
            head.extend(self.acknowledgement.to_be_bytes());
            head.push((((20 + self.options.len()) / 4) << 4) as u8);
            head.push(self.flags);
            head.extend(self.window.to_be_bytes());
            head.extend([0, 0, 0, 0]);
            head.extend(&self.options);
        } else {
            head.extend(((8 + self.payload.len()) as u16).to_be_bytes());
            head.extend([0, 0]);
        }
        head
    }

    fn checksum_at(&self) -> usize {
        if self.is_tcp {
            16
        } else {
            6
        }
    }

    fn network_header(&self) -> Vec<u8> {
        let protocol = if self.is_tcp { 6 } else { 17 };
        let behind = self.extra.len() + self.header_len() - self.transport() + self.payload.len();
        let mut head = Vec::new();
        if self.is_v4 {
            assert!(self.extra.len() % 4 == 0);
            head.extend([0x45 + (self.extra.len() / 4) as u8, self.tos]);
            head.extend(((20 + behind) as u16).to_be_bytes());
            head.extend(self.identity.to_be_bytes());
            head.extend(self.fragment.to_be_bytes());
            head.extend([self.ttl, protocol, 0, 0]);
            head.extend(self.addresses_v4());
            head.extend(&self.extra);
            let sum = checksum(slow_sum(&head)).to_be_bytes();
            head[10..12].copy_from_slice(&sum);
        } else {
            head.extend([0x60, self.tos, 0, 0]);
            head.extend((behind as u16).to_be_bytes());
            head.push(if self.extra.is_empty() { protocol } else { 60 });
            head.push(self.ttl);
            head.extend(self.addresses_v6());
            let mut extra = self.extra.clone();
            if let Some(next) = extra.first_mut() {
                *next = protocol;
            }
            head.extend(extra);
        }
        head
    }

    fn assembled(&self, transport_sum: impl Fn(&[u8]) -> u16) -> Vec<u8> {
        let mut frame = vec![2, 0, 0, 0, 0, 9, 2, 0, 0, 0, 0, self.address];
        for tag in &self.tags {
            frame.extend(tag);
        }
        frame.extend(if self.is_v4 { [0x08, 0x00] } else { [0x86, 0xDD] });
        frame.extend(self.network_header());
        let mut rest = self.transport_header();
        rest.extend(&self.payload);
        let sum = transport_sum(&rest).to_be_bytes();
        let at = self.checksum_at();
        rest[at..at + 2].copy_from_slice(&sum);
        frame.extend(rest);
        frame
    }

    /// The frame with good checksums.
    pub fn frame(&self) -> Vec<u8> {
        self.assembled(|rest| match checksum(slow_sum(rest) + self.pseudo()) {
            0 if !self.is_tcp => 0xFFFF,
            sum => sum,
        })
    }

    /// The frame as the kernel gives it to a TAP with checksums left to us.
    pub fn partial_frame(&self) -> Vec<u8> {
        self.assembled(|_| self.pseudo() as u16)
    }

    pub fn vnet(&self, gso_size: u16) -> VnetHeader {
        VnetHeader {
            flags: NEEDS_CSUM,
            gso_type: match (gso_size, self.is_tcp, self.is_v4) {
                (0, _, _) => 0,
                (_, true, true) => GSO_TCPV4,
                (_, true, false) => GSO_TCPV6,
                _ => GSO_UDP_L4,
            },
            hdr_len: self.header_len() as u16,
            gso_size,
            csum_start: self.transport() as u16,
            csum_offset: self.checksum_at() as u16,
        }
    }

    /// What the sender would have sent, had it cut the data itself.
    pub fn segments(&self, size: usize) -> Vec<Vec<u8>> {
        let count = self.payload.len().div_ceil(size);
        let pieces = self.payload.chunks(size).enumerate();
        pieces
            .map(|(index, piece)| {
                let mut flags = self.flags;
                if index + 1 < count {
                    flags &= !(FIN | PSH);
                }
                if index > 0 {
                    flags &= !CWR;
                }
                Self {
                    identity: self.identity.wrapping_add(index as u16),
                    sequence: self.sequence.wrapping_add((index * size) as u32),
                    flags,
                    payload: piece.to_vec(),
                    ..self.clone()
                }
                .frame()
            })
            .collect()
    }
}

/// Bytes that are different from place to place.
pub fn data(octets: usize, seed: u8) -> Vec<u8> {
    (0..octets).map(|at| (at as u8).wrapping_mul(31).wrapping_add((at >> 8) as u8).wrapping_add(seed)).collect()
}
