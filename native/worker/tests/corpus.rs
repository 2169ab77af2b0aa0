//! Every input of the committed fuzz corpus that needs the worker, once more.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout, missing_docs)]

#[path = "../../fuzz/src/open.rs"]
mod target;

#[path = "../../fuzz/src/inputs.rs"]
mod inputs;

#[test]
fn open() {
    inputs::replay("open", target::open);
}
