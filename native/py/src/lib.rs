//! The Python module `bridged._native`: values in, values out. What happens is written in the other crates.
//!
//! Imported by bridged/dataplane/native.py only (and by tests/contract); bridged/_native.pyi types it.

mod from_python;
mod plane;
mod pure;
mod settings;
mod to_python;

use pyo3::prelude::*;

/// Changes whenever this module and bridged/dataplane/native.py must be of one version.
const SEAM: u32 = 24;

#[pymodule]
mod _native {
    #[pymodule_export]
    use super::plane::DataPlane;
    #[pymodule_export]
    use super::pure::{clamp_mss, coalesce, segment, Fdb, ReplayWindow};
    use super::{Bound, PyModule, PyModuleMethods, PyResult, SEAM};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        module.add("SEAM", SEAM)
    }
}
