//! What threads share: locks that survive a panic of another thread (what they guard is counters and tables, valid at
//! every step), and the types that change under feature `model`.
//!
//! With that feature the atomics, locks and swaps named here are those of loom, which runs every interleaving of a few
//! threads (`models.rs`); nothing else works then.

#[cfg(not(feature = "model"))]
pub use arc_swap::{ArcSwap, ArcSwapOption, Guard};
#[cfg(feature = "model")]
pub use loom::sync::{
    atomic::{AtomicBool, AtomicU64},
    Mutex, MutexGuard,
};
#[cfg(not(feature = "model"))]
pub use std::sync::{
    atomic::{AtomicBool, AtomicU64},
    Mutex, MutexGuard,
};
use std::sync::{PoisonError, TryLockError};

#[cfg(feature = "model")]
pub use crate::model_swap::{ArcSwap, ArcSwapOption, Guard};

/// Lock, even if the thread that held it last panicked.
pub fn lock<Value>(mutex: &Mutex<Value>) -> MutexGuard<'_, Value> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lock, unless another thread holds it.
pub fn try_lock<Value>(mutex: &Mutex<Value>) -> Option<MutexGuard<'_, Value>> {
    match mutex.try_lock() {
        Ok(guard) => Some(guard),
        Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
        Err(TryLockError::WouldBlock) => None,
    }
}

/// A value on cache lines of its own.
#[derive(Debug, Default)]
#[repr(align(128))]
pub struct Padded<Value>(pub Value);
