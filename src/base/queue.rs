//! Queue: the one structure two threads share. Bounded; one sender, one receiver.
//!
//! Owns:     values sent and not yet received.
//! Promises: values come in the order in which they were sent, each once; sending and receiving
//!           neither lock, wait nor allocate; all memory is allocated by `channel`.
//! Never:    wakes anybody: the sender does that, by the receiver's waker.
//! Used by the shards' mailboxes.
//!
//! ```text
//!   slots   | free | value | value | value | free | free |
//!                    head ->                 tail ->
//!                    receiver's              sender's
//! ```
//!
//! Head and tail count up and wrap; a slot's index is the count modulo the number of slots, a power
//! of two. Each side writes its own count and reads the other's only when its copy of it says that
//! the queue is full (sender) or empty (receiver).
//!
//! Checked with loom over every interleaving of short runs:
//! `RUSTFLAGS="--cfg corelane_loom" cargo test --lib base::queue --target-dir target/loom`. The flag
//! isn't plain `loom`: other crates listen to that one, and some don't build with it.

#[cfg(not(corelane_loom))]
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

#[cfg(corelane_loom)]
use loom::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use std::mem::MaybeUninit;

struct Shared<T> {
    slots: Box<[Slot<T>]>,
    capacity: usize,
    head: Count,
    tail: Count,
}

/// A count in a cache line of its own, so that the two sides don't take each other's.
#[repr(align(128))]
struct Count(AtomicUsize);

// SAFETY: a slot is touched by one side at a time: by the sender while it is free, by the receiver
// while it holds a value; the acquire loads and release stores of the counts pass it over. Values
// move from thread to thread, so they must be `Send`.
unsafe impl<T: Send> Send for Shared<T> {}
// SAFETY: as above; no reference to a value is ever shared.
unsafe impl<T: Send> Sync for Shared<T> {}

pub struct Sender<T> {
    shared: Arc<Shared<T>>,
    tail: usize,
    /// The receiver's count as last seen; it may be further by now.
    head_seen: usize,
}

pub struct Receiver<T> {
    shared: Arc<Shared<T>>,
    head: usize,
    /// The sender's count as last seen; it may be further by now.
    tail_seen: usize,
}

/// A queue for at most `capacity` values.
///
/// Precondition: `0 < capacity <= 2^32`.
pub fn channel<T>(capacity: usize) -> (Sender<T>, Receiver<T>) {
    assert!(capacity > 0);
    assert!(capacity <= 1 << 32);
    let shared = Arc::new(Shared {
        slots: (0..capacity.next_power_of_two()).map(|_| Slot::new()).collect(),
        capacity,
        head: Count(AtomicUsize::new(0)),
        tail: Count(AtomicUsize::new(0)),
    });
    let sender = Sender { shared: shared.clone(), tail: 0, head_seen: 0 };
    (sender, Receiver { shared, head: 0, tail_seen: 0 })
}

impl<T> Sender<T> {
    /// Sends `value`, or gives it back when the queue is full.
    pub fn try_send(&mut self, value: T) -> Result<(), T> {
        if self.free_count() == 0 {
            return Err(value);
        }
        // SAFETY: the receiver has left this slot (acquire in `free_count`) and enters it only
        // after the store below.
        unsafe { self.shared.slot(self.tail).write(value) };
        self.tail = self.tail.wrapping_add(1);
        self.shared.tail.0.store(self.tail, Ordering::Release);
        Ok(())
    }

    /// How many sends will succeed at least. Looks at the receiver only when it must.
    pub fn free_count(&mut self) -> usize {
        if self.tail.wrapping_sub(self.head_seen) == self.shared.capacity {
            self.head_seen = self.shared.head.0.load(Ordering::Acquire);
        }
        self.shared.capacity - self.tail.wrapping_sub(self.head_seen)
    }
}

impl<T> Receiver<T> {
    /// The oldest value, if there is one.
    pub fn try_receive(&mut self) -> Option<T> {
        if self.head == self.tail_seen {
            self.tail_seen = self.shared.tail.0.load(Ordering::Acquire);
            if self.head == self.tail_seen {
                return None;
            }
        }
        // SAFETY: the sender has filled this slot (acquire above) and enters it again only after
        // the store below.
        let value = unsafe { self.shared.slot(self.head).read() };
        self.head = self.head.wrapping_add(1);
        self.shared.head.0.store(self.head, Ordering::Release);
        Some(value)
    }

    pub fn watch(&self) -> Watch<T> {
        Watch(self.shared.clone())
    }

    pub fn is_empty(&self) -> bool {
        self.head == self.tail_seen && self.head == self.shared.tail.0.load(Ordering::Acquire)
    }
}

/// Looks at a queue from a third thread.
pub struct Watch<T>(Arc<Shared<T>>);

impl<T> Watch<T> {
    /// Nothing waited a moment ago.
    pub fn is_empty(&self) -> bool {
        self.0.head.0.load(Ordering::Acquire) == self.0.tail.0.load(Ordering::Acquire)
    }
}

impl<T> Shared<T> {
    fn slot(&self, count: usize) -> &Slot<T> {
        &self.slots[count & (self.slots.len() - 1)]
    }
}

impl<T> Drop for Shared<T> {
    fn drop(&mut self) {
        // The last owner sees what both sides stored: giving up an `Arc` is a release, being the
        // last an acquire.
        let (mut head, tail) = (self.head.0.load(Ordering::Relaxed), self.tail.0.load(Ordering::Relaxed));
        while head != tail {
            // SAFETY: slots from head to tail hold values, and nobody else is left.
            drop(unsafe { self.slot(head).read() });
            head = head.wrapping_add(1);
        }
    }
}

/// Room for a value; who may touch it is known by the counts. Loom watches the accesses.
struct Slot<T>(UnsafeCell<MaybeUninit<T>>);

#[cfg(not(corelane_loom))]
use std::cell::UnsafeCell;

#[cfg(corelane_loom)]
use loom::cell::UnsafeCell;

#[cfg(not(corelane_loom))]
impl<T> Slot<T> {
    fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// The slot is free and the caller the only one to touch it.
    unsafe fn write(&self, value: T) {
        // SAFETY: exclusive by the caller's promise.
        unsafe { (*self.0.get()).write(value) };
    }

    /// # Safety
    /// The slot holds a value, the caller is the only one to touch it and reads it once.
    unsafe fn read(&self) -> T {
        // SAFETY: initialised and exclusive by the caller's promise.
        unsafe { (*self.0.get()).assume_init_read() }
    }
}

#[cfg(corelane_loom)]
impl<T> Slot<T> {
    fn new() -> Self {
        Self(UnsafeCell::new(MaybeUninit::uninit()))
    }

    /// # Safety
    /// The slot is free and the caller the only one to touch it.
    unsafe fn write(&self, value: T) {
        // SAFETY: exclusive by the caller's promise.
        self.0.with_mut(|slot| unsafe { (*slot).write(value) });
    }

    /// # Safety
    /// The slot holds a value, the caller is the only one to touch it and reads it once.
    unsafe fn read(&self) -> T {
        // SAFETY: initialised and exclusive by the caller's promise. Reading moves the value out,
        // which is a change.
        self.0.with_mut(|slot| unsafe { (*slot).assume_init_read() })
    }
}

#[cfg(all(test, not(corelane_loom)))]
mod tests {
    use super::*;
    use std::rc::Rc;

    #[test]
    fn a_full_queue_gives_the_value_back() {
        for capacity in [1, 2, 3, 5, 8] {
            let (mut sender, mut receiver) = channel(capacity);
            assert!(receiver.is_empty());
            // Often enough to pass every slot several times.
            for round in 0..20 {
                assert_eq!(sender.free_count(), capacity);
                for value in 0..capacity {
                    assert_eq!(sender.try_send(round + value), Ok(()));
                }
                assert_eq!(sender.try_send(999), Err(999));
                assert!(!receiver.is_empty());
                for value in 0..capacity {
                    assert_eq!(receiver.try_receive(), Some(round + value));
                }
                assert_eq!(receiver.try_receive(), None);
                assert!(receiver.is_empty());
            }
        }
    }

    #[test]
    fn values_never_received_are_dropped() {
        let value = Rc::new(());
        let (mut sender, mut receiver) = channel(4);
        for _ in 0..3 {
            sender.try_send(value.clone()).expect("there is room");
        }
        drop(receiver.try_receive());
        drop((sender, receiver));
        assert_eq!(Rc::strong_count(&value), 1);
    }

    #[test]
    fn values_cross_threads_in_order() {
        const COUNT: u64 = 200_000;
        let (mut sender, mut receiver) = channel(7);
        let thread = std::thread::spawn(move || {
            for value in 0..COUNT {
                // Boxed, so that a value read twice or torn doesn't stay unnoticed.
                let mut value = Box::new(value);
                while let Err(back) = sender.try_send(value) {
                    value = back;
                    std::thread::yield_now();
                }
            }
        });
        for expected in 0..COUNT {
            let value = loop {
                match receiver.try_receive() {
                    Some(value) => break value,
                    None => std::thread::yield_now(),
                }
            };
            assert_eq!(*value, expected);
        }
        thread.join().expect("the sender ends");
        assert_eq!(receiver.try_receive(), None);
    }
}

#[cfg(all(test, corelane_loom))]
mod loom_tests {
    use super::*;

    #[test]
    fn every_interleaving_keeps_order_and_values() {
        loom::model(|| {
            let (mut sender, mut receiver) = channel(1);
            let thread = loom::thread::spawn(move || {
                for value in 0..3 {
                    let mut value = Box::new(value);
                    while let Err(back) = sender.try_send(value) {
                        value = back;
                        loom::thread::yield_now();
                    }
                }
            });
            for expected in 0..2 {
                let value = loop {
                    match receiver.try_receive() {
                        Some(value) => break value,
                        None => loom::thread::yield_now(),
                    }
                };
                assert_eq!(*value, expected);
            }
            // The last value may still be on its way: whoever drops the queue drops it.
            drop(receiver);
            thread.join().expect("the sender ends");
        });
    }
}
