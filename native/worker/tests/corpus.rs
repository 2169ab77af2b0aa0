//! Every input of the committed fuzz corpus that needs the worker, once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../../fuzz/src/open.rs"]
mod target;

use std::fs;
use std::path::PathBuf;

#[test]
fn open() {
    let corpus = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/open");
    let mut inputs: Vec<PathBuf> = fs::read_dir(corpus).unwrap().map(|entry| entry.unwrap().path()).collect();
    inputs.sort();
    assert!(inputs.len() >= 4, "{} inputs", inputs.len());
    for input in inputs {
        println!("{}", input.display());
        target::open(&fs::read(input).unwrap());
    }
}
