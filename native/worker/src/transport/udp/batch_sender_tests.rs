use std::os::unix::net::UnixDatagram;

use super::*;

/// Packets of these lengths end to end; a 0 stands for a byte that belongs to none.
fn packets(lengths: &[usize]) -> Vec<Packet> {
    let mut start = 0;
    let mut found = Vec::new();
    for length in lengths {
        if *length > 0 {
            found.push(Packet { start, length: *length, class: 0 });
        }
        start += (*length).max(1);
    }
    found
}

#[test]
fn equal_packets_go_together_and_a_shorter_one_ends_them() {
    for (lengths, limit, wanted) in [
        (vec![], 9000, 0),
        (vec![100], 9000, 1),
        (vec![100, 100, 100], 9000, 3),
        (vec![100, 100, 90, 90], 9000, 3),
        (vec![100, 110], 9000, 1),
        (vec![100, 0, 100], 9000, 1),
        (vec![100, 100, 0, 90], 9000, 2),
        (vec![100, 100], 100, 2),
        (vec![100, 100], 99, 1),
        (vec![100, 100], 0, 1),
        (vec![100; 70], 9000, 64),
        (vec![1472; 50], 9000, 44),
        (vec![32_500, 32_500, 1], 65_507, 2),
        (vec![65_507, 1], 65_507, 1),
    ] {
        assert_eq!(together(&packets(&lengths), limit), wanted, "{lengths:?} {limit}");
    }
}

#[test]
fn an_end_is_open_that_more_of_its_length_can_join() {
    for (lengths, limit, wanted) in [
        (vec![], 9000, 0),
        (vec![100], 9000, 1),
        (vec![100, 100], 9000, 2),
        (vec![100, 100, 90], 9000, 0),
        (vec![100, 100, 90, 90], 9000, 1),
        (vec![100, 110, 110], 9000, 2),
        (vec![100, 100], 99, 0),
        (vec![100; 64], 9000, 0),
        (vec![100; 65], 9000, 1),
        (vec![1472; 44], 9000, 0),
        (vec![1472; 50], 9000, 6),
        (vec![65_507], 65_507, 0),
    ] {
        assert_eq!(open_end(lengths.iter().copied(), limit), wanted, "{lengths:?} {limit}");
    }
}

#[test]
fn a_socket_that_stays_full_is_waited_for_only_once() {
    let (near, _far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    while near.send(&[0; 1000]).is_ok() {}
    let mut wait_budget = WaitBudget(SEND_WAIT);
    let began = now();
    // A wait may be interrupted.
    while wait_budget.0 > 0 {
        assert!(!wait_budget.wait(near.as_fd()));
    }
    assert!(now() - began >= SEND_WAIT);
    let began = now();
    for _ in 0..1000 {
        assert!(!wait_budget.wait(near.as_fd()));
    }
    assert!(now() - began < 100 * SEND_WAIT, "a tenth of what they would take one by one");
}

#[test]
fn what_becomes_writable_while_waited_for_is() {
    let (near, far) = UnixDatagram::pair().unwrap();
    near.set_nonblocking(true).unwrap();
    while near.send(&[0; 1000]).is_ok() {}
    far.set_nonblocking(true).unwrap();
    while far.recv(&mut [0; 1000]).is_ok() {}
    let mut wait_budget = WaitBudget(SEND_WAIT);
    assert!(wait_budget.wait(near.as_fd()));
}
