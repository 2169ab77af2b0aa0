//! Locks that survive a panic of another thread: what they guard is counters and tables, valid at every step.

use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// Lock, whatever happened to the thread that had it last.
pub fn lock<Value>(mutex: &Mutex<Value>) -> MutexGuard<'_, Value> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Lock, unless another thread has it.
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
