use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::test_rig::{frame, Far, Rig};

/// A data plane at work whose rests are so long that nobody can miss one, with one peer.
fn resting(seconds: u32) -> (Rig, Far) {
    let rig = Rig::new(|settings| settings.moderation = seconds * 1_000_000);
    rig.plane.start().unwrap();
    let far = rig.join(7, Some(7));
    (rig, far)
}

fn sealed(far: &Far, count: usize, octets: usize) -> Vec<Vec<u8>> {
    (0..count).map(|number| far.seal(&frame(number, octets))).collect()
}

/// How long it takes until so many packets are opened; more than 8 s is a failure.
fn until_opened(far: &Far, count: u64, since: Instant) -> Duration {
    while far.opened() < count {
        assert!(since.elapsed() < Duration::from_secs(8), "{} of {count}", far.opened());
        sleep(Duration::from_millis(1));
    }
    since.elapsed()
}

#[test]
fn a_fast_stream_of_large_packets_gathers_and_none_is_lost() {
    let (rig, far) = resting(1);
    // On a busy machine a thread may see a stream as one burst. So few packets fit into any socket's buffer.
    for round in 1..=20 {
        let packets = sealed(&far, 170, 1400);
        let since = Instant::now();
        for (number, packet) in packets.chunks(1).enumerate() {
            while since.elapsed() < Duration::from_micros(15) * number as u32 {}
            far.send(&rig.plane, packet);
        }
        if until_opened(&far, 170 * round, since) >= Duration::from_secs(1) {
            rig.plane.stop();
            return;
        }
    }
    panic!("nothing gathered");
}

#[test]
fn lone_and_small_packets_never_wait() {
    let (rig, far) = resting(6);
    let since = Instant::now();
    for _ in 0..10 {
        far.send(&rig.plane, &sealed(&far, 1, 1400));
        sleep(Duration::from_millis(2));
    }
    for round in 1..=10 {
        far.send(&rig.plane, &sealed(&far, 200, 100));
        until_opened(&far, 10 + 200 * round, since);
    }
    assert!(since.elapsed() < Duration::from_secs(5), "something waited");
    rig.plane.stop();
}
