//! The committed inputs of a target: one a line, in hexadecimal. tests/fuzz/inputs.py packs and unpacks them.

use std::fs;
use std::path::PathBuf;

pub fn file(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(format!("{target}.hex"))
}

pub fn read(target: &str) -> Vec<Vec<u8>> {
    let text = fs::read_to_string(file(target)).unwrap();
    text.lines().map(decode).collect()
}

fn decode(line: &str) -> Vec<u8> {
    assert!(line.len() % 2 == 0, "half an octet: {line}");
    (0..line.len()).step_by(2).map(|at| u8::from_str_radix(&line[at..at + 2], 16).unwrap()).collect()
}

/// Run the target on each of its inputs; print one before it runs, to be seen where it panics.
pub fn replay(target: &str, run: fn(&[u8])) {
    let inputs = read(target);
    assert!(inputs.len() >= 4, "{} inputs for {target}", inputs.len());
    for input in inputs {
        println!("{input:02x?}");
        run(&input);
    }
}
