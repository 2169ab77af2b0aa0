//! A long and lossy line between two UDP programs, for measuring: delays every datagram, loses some at random.
//!
//! `line LISTEN TARGET DELAY_MICROSECONDS LOSS SEED`: a client that writes to LISTEN talks to TARGET. The delay is for
//! each way; LOSS is a share, 0 to 1. Runs until its standard input ends, then prints how many datagrams came, and how
//! many were lost. What falls due together leaves together (UDP_SEGMENT), as on a WAN that passes super-frames.
#![allow(clippy::print_stdout, clippy::expect_used)]

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

use bridged_sys::address::{Family, RawAddress};
use bridged_sys::descriptor::wait_readable;
use bridged_sys::receive::Receiver;
use bridged_sys::send::{DatagramSender, Outgoing, MAX_BATCH_OCTETS, MAX_SEGMENTS};
use bridged_sys::thread::{now, wait_exactly};
use bridged_sys::udp::{Options, UdpSocket};

const SLOTS: usize = 32;
const BUFFER: usize = 4 * 1024 * 1024;
/// Datagrams under way in one direction; a line that has more loses them.
const UNDER_WAY_MOST: usize = 200_000;
const STDIN: i32 = 0;

/// Xorshift, 64 bits (Marsaglia 2003).
struct Dice(u64);

impl Dice {
    /// 0 to 1.
    fn roll(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// One direction.
struct Way {
    under_way: VecDeque<(u64, Vec<u8>)>,
    dice: Dice,
    came: u64,
    lost: u64,
}

impl Way {
    fn new(seed: u64) -> Way {
        let mut dice = Dice(seed | 1);
        for _ in 0..16 {
            dice.roll();
        }
        Way { under_way: VecDeque::new(), dice, came: 0, lost: 0 }
    }

    fn take(&mut self, datagram: &[u8], due: u64, loss: f64) {
        self.came += 1;
        if self.dice.roll() < loss || self.under_way.len() >= UNDER_WAY_MOST {
            self.lost += 1;
        } else {
            self.under_way.push_back((due, datagram.to_vec()));
        }
    }

    /// Send what is due: runs of one size in one call each.
    fn send_due(
        &mut self,
        sender: &mut DatagramSender,
        socket: &UdpSocket,
        destination: RawAddress,
        run: &mut Vec<u8>,
    ) {
        let time = now();
        while self.under_way.front().is_some_and(|(due, _)| *due <= time) {
            run.clear();
            let mut size = 0;
            while let Some((due, datagram)) = self.under_way.front() {
                let is_full = run.len() / size.max(1) >= MAX_SEGMENTS || run.len() + datagram.len() > MAX_BATCH_OCTETS;
                if *due > time || (size > 0 && (is_full || datagram.len() > size)) {
                    break;
                }
                let is_last = size > 0 && datagram.len() < size;
                size = size.max(datagram.len());
                run.extend_from_slice(datagram);
                self.under_way.pop_front();
                if is_last {
                    break;
                }
            }
            let segment = if run.len() > size { size } else { 0 };
            let message = Outgoing { start: 0, length: run.len(), segment, destination, pin: None, class: 0, hops: 0 };
            // What the socket refuses is lost on the line.
            if sender.send(socket, run, &message).is_err() {
                self.lost += 1;
            }
        }
    }
}

fn receive(receiver: &mut Receiver, socket: &UdpSocket, way: &mut Way, delay: u64, loss: f64) -> Option<SocketAddr> {
    let mut source = None;
    let Ok(count) = receiver.receive(socket, SLOTS) else { return None };
    let due = now() + delay;
    for index in 0..count {
        let message = receiver.message(index);
        source = message.source.or(source);
        let base = index * receiver.stride();
        for datagram in receiver.octets()[base..base + message.length].chunks(message.segment.max(1)) {
            way.take(datagram, due, loss);
        }
    }
    source
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, listen, target, delay, loss, seed] = arguments.as_slice() else {
        println!("usage: line LISTEN TARGET DELAY_MICROSECONDS LOSS SEED");
        return;
    };
    let listen: SocketAddr = listen.parse().expect("LISTEN");
    let target: SocketAddr = target.parse().expect("TARGET");
    let delay = delay.parse::<u64>().expect("DELAY_MICROSECONDS") * 1000;
    let loss: f64 = loss.parse().expect("LOSS");
    let seed: u64 = seed.parse().expect("SEED");
    let open = |bind| {
        let options = Options { bind: Some(bind), buffer: BUFFER, share: false, busy_poll: 0 };
        UdpSocket::open(Family::of(&target), &options).expect("socket")
    };
    let front = open(listen);
    let back = open(SocketAddr::new(listen.ip(), 0));
    let server = RawAddress::new(&target, front.family()).expect("address");
    let mut client = None;
    let (mut there, mut home) = (Way::new(seed.wrapping_mul(2)), Way::new(seed.wrapping_mul(2) + 0x9E37_79B9));
    let (mut receiver, mut sender, mut run) = (Receiver::new(SLOTS, SLOTS), DatagramSender::new(), Vec::new());
    wait_exactly();
    println!("line ready");
    loop {
        let next = [&there, &home].iter().filter_map(|way| way.under_way.front()).map(|(due, _)| *due).min();
        let timeout = next.map(|due| due.saturating_sub(now()));
        let ready = wait_readable(&[front.as_raw_fd(), back.as_raw_fd(), STDIN], timeout);
        if ready & 0b100 != 0 {
            break;
        }
        if ready & 0b001 != 0 {
            let source = receive(&mut receiver, &front, &mut there, delay, loss);
            client = source.and_then(|source| RawAddress::new(&source, front.family()).ok()).or(client);
        }
        if ready & 0b010 != 0 {
            receive(&mut receiver, &back, &mut home, delay, loss);
        }
        there.send_due(&mut sender, &back, server, &mut run);
        if let Some(client) = client {
            home.send_due(&mut sender, &front, client, &mut run);
        }
    }
    for (name, way) in [("there", &there), ("home", &home)] {
        println!("{name}: {} came, {} lost", way.came, way.lost);
    }
}
