//! Torch's own threads, by the OpenMP library that torch runs on.
//!
//! After a product torch's threads spin for a while, waiting for the next. A thread of ours would share its core with
//! one of them, so our work goes to them.

#![expect(unsafe_code, reason = "a call into another library, and an instruction that std gives pointers alone")]

use std::ffi::{c_uint, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use gliner_fast_core::{Cache, Host, NewThreads};

type Body = unsafe extern "C" fn(*mut c_void);
/// `GOMP_parallel(body, data, threads, flags)`: what compilers make of `#pragma omp parallel`; libgomp has it, and so
/// have LLVM's and Intel's libraries.
type Parallel = unsafe extern "C" fn(Body, *mut c_void, c_uint, c_uint);

/// Torch's threads, or new ones where torch has another library.
pub(crate) struct TorchThreads(Option<Parallel>);

impl TorchThreads {
    /// Takes the address of `GOMP_parallel`, or 0.
    ///
    /// # Safety
    ///
    /// The address is one of these two.
    pub(crate) unsafe fn at(address: usize) -> Self {
        let pointer = std::ptr::with_exposed_provenance::<()>(address);
        // SAFETY: the caller's, and None is the null pointer.
        Self(unsafe { std::mem::transmute::<*const (), Option<Parallel>>(pointer) })
    }
}

struct Work<'a> {
    call: &'a (dyn Fn() + Sync),
    /// How many more threads may take part.
    places: AtomicUsize,
    panicked: AtomicBool,
}

unsafe extern "C" fn body(data: *mut c_void) {
    // SAFETY: `run` gives its own `Work`, which it keeps until all threads have come back from here.
    let work = unsafe { &*data.cast::<Work<'_>>().cast_const() };
    if work.places.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_err() {
        return;
    }
    if catch_unwind(AssertUnwindSafe(work.call)).is_err() {
        work.panicked.store(true, Ordering::Relaxed); // a panic must not pass through the library
    }
}

impl Host for TorchThreads {
    fn run(&self, threads: usize, call: &(dyn Fn() + Sync)) {
        let Some(parallel) = self.0 else { return NewThreads.run(threads, call) };
        let work = Work { call, places: AtomicUsize::new(threads), panicked: AtomicBool::new(false) };
        // SAFETY: `parallel` calls `body` with this pointer on each of its threads and returns when all calls have;
        // `Work` may be shared by threads, since its parts may.
        // 0 threads are as many as torch's own products have: a team of another size would be made anew, and torch's after
        // it again.
        unsafe { parallel(body, (&raw const work).cast_mut().cast(), 0, 0) };
        assert!(
            !work.panicked.into_inner(),
            "a thread of the native module panicked: its message is on standard error"
        );
    }

    fn worth_a_thread(&self) -> u128 {
        if self.0.is_some() { 1 << 19 } else { NewThreads.worth_a_thread() }
    }

    #[inline]
    fn prefetch<T>(&self, place: *const T, into: Cache) {
        #[cfg(target_arch = "x86_64")]
        // SAFETY: a hint, for any address.
        unsafe {
            use std::arch::x86_64::{_MM_HINT_T0, _MM_HINT_T1, _mm_prefetch};
            match into {
                Cache::First => _mm_prefetch::<_MM_HINT_T0>(place.cast()),
                Cache::Second => _mm_prefetch::<_MM_HINT_T1>(place.cast()),
            }
        }
        #[cfg(not(target_arch = "x86_64"))]
        let _ = (place, into);
    }
}
