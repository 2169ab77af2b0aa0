//! arc-swap's interface for models: every call is one step, as arc-swap promises, at which other threads may come first.

use std::ops::Deref;
use std::sync::Arc;

use loom::sync::Mutex;

use crate::sync::lock;

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

impl<Pointer: Clone> Swap<Pointer> {
    /// The present one.
    pub fn load(&self) -> Guard<Pointer> {
        Guard(self.load_full())
    }

    /// The present one.
    pub fn load_full(&self) -> Pointer {
        lock(&self.0).clone()
    }

    /// Put another in its place.
    pub fn store(&self, pointer: Pointer) {
        drop(self.swap(pointer));
    }

    /// Put another in its place; the one before.
    pub fn swap(&self, pointer: Pointer) -> Pointer {
        std::mem::replace(&mut *lock(&self.0), pointer)
    }
}

impl<Value> Swap<Arc<Value>> {
    /// Of a value.
    pub fn from_pointee(value: Value) -> Self {
        Swap(Mutex::new(Arc::new(value)))
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

    /// Put another in the place of `current`, if it is there; the one before.
    pub fn compare_and_swap(&self, current: &Arc<Value>, pointer: Option<Arc<Value>>) -> Guard<Option<Arc<Value>>> {
        let mut place = lock(&self.0);
        let before = place.clone();
        if before.as_ref().is_some_and(|before| Arc::ptr_eq(before, current)) {
            *place = pointer;
        }
        Guard(before)
    }
}
