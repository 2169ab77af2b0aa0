//! arc-swap's interface for models: every call is one step, as arc-swap promises, at which other threads may come
//! first.

use std::ops::Deref;
use std::sync::{Arc, PoisonError};

use loom::sync::{Mutex, MutexGuard};

/// Stands for `arc_swap::ArcSwap`.
pub type ArcSwap<Value> = Swap<Arc<Value>>;
/// Stands for `arc_swap::ArcSwapOption`.
pub type ArcSwapOption<Value> = Swap<Option<Arc<Value>>>;

/// A pointer that is replaced as a whole.
#[derive(Debug)]
pub struct Swap<Pointer>(Mutex<Pointer>);

/// What `load` saw.
#[derive(Debug)]
pub struct Guard<Pointer>(Pointer);

impl<Pointer> Deref for Guard<Pointer> {
    type Target = Pointer;

    fn deref(&self) -> &Pointer {
        &self.0
    }
}

impl<Pointer> Swap<Pointer> {
    fn lock(&self) -> MutexGuard<'_, Pointer> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<Pointer: Clone> Swap<Pointer> {
    /// The present one.
    pub fn load(&self) -> Guard<Pointer> {
        Guard(self.load_full())
    }

    /// The present one.
    pub fn load_full(&self) -> Pointer {
        self.lock().clone()
    }

    /// Replace the pointer.
    pub fn store(&self, pointer: Pointer) {
        drop(self.swap(pointer));
    }

    /// Replace the pointer; returns the previous one.
    pub fn swap(&self, pointer: Pointer) -> Pointer {
        std::mem::replace(&mut *self.lock(), pointer)
    }
}

impl<Value> Swap<Arc<Value>> {
    /// Of a value.
    pub fn from_pointee(value: Value) -> Self {
        Swap(Mutex::new(Arc::new(value)))
    }
}

impl<Value> Swap<Arc<Value>> {
    /// Replace the pointer if it is `current`; returns the previous one.
    pub fn compare_and_swap(&self, current: &Arc<Value>, pointer: Arc<Value>) -> Guard<Arc<Value>> {
        let mut place = self.lock();
        let before = Arc::clone(&place);
        if Arc::ptr_eq(&before, current) {
            *place = pointer;
        }
        Guard(before)
    }
}

impl<Value> Swap<Option<Arc<Value>>> {
    /// Of a value, or none.
    pub fn from_pointee(value: impl Into<Option<Value>>) -> Self {
        Swap(Mutex::new(value.into().map(Arc::new)))
    }

    /// Of none.
    pub fn empty() -> Self {
        Swap(Mutex::new(None))
    }

    /// Replace the pointer if it is `current`; returns the previous one.
    pub fn compare_and_swap(&self, current: &Arc<Value>, pointer: Option<Arc<Value>>) -> Guard<Option<Arc<Value>>> {
        let mut place = self.lock();
        let before = place.clone();
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, current)) {
            *place = pointer;
        }
        Guard(before)
    }
}
