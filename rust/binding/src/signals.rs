//! Stacks for signal handlers.

use pyo3::prelude::*;

/// A stack for the calling thread and torch's others, each for as long as it lives.
#[pyfunction]
pub(crate) fn take_signal_stacks(py: Python<'_>, openmp: usize) {
    #[cfg(unix)]
    py.detach(|| unix::take_on_all(openmp));
    #[cfg(not(unix))]
    let _ = (py, openmp);
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "calls into the system's library")]
mod unix {
    use std::cell::RefCell;
    use std::mem::{MaybeUninit, forget};
    use std::ptr::{null, null_mut};

    use gliner_fast_core::Host as _;

    use crate::openmp::TorchThreads;

    /// What a CPU keeps of its registers takes eleven kilobytes at most, AMX's tiles included; the rest is for handlers of
    /// other libraries.
    const BYTES: usize = 256 << 10;

    thread_local! {
        static OWN: RefCell<Option<Stack>> = const { RefCell::new(None) };
    }

    /// The stack that a thread's handlers run on; with the thread it goes.
    struct Stack(Box<[u8]>);

    impl Stack {
        fn take() -> Option<Self> {
            let mut stack = vec![0_u8; BYTES].into_boxed_slice();
            let told = libc::stack_t { ss_sp: stack.as_mut_ptr().cast(), ss_flags: 0, ss_size: BYTES };
            // SAFETY: memory of that size, which stays until `drop` has told the system to do without.
            let is_taken = unsafe { libc::sigaltstack(&raw const told, null_mut()) } == 0;
            is_taken.then_some(Self(stack))
        }
    }

    impl Drop for Stack {
        fn drop(&mut self) {
            if !present().is_some_and(|stack| std::ptr::addr_eq(stack.ss_sp, self.0.as_ptr())) {
                return; // somebody else's has taken its place
            }
            let none = libc::stack_t { ss_sp: null_mut(), ss_flags: libc::SS_DISABLE, ss_size: BYTES };
            // SAFETY: no memory is handed over.
            if unsafe { libc::sigaltstack(&raw const none, null_mut()) } != 0 {
                forget(std::mem::take(&mut self.0)); // a handler runs there
            }
        }
    }

    /// What the system has for the calling thread's handlers; None where it does not tell.
    fn present() -> Option<libc::stack_t> {
        let mut stack = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: asks alone, and writes a `stack_t` where one fits.
        let is_told = unsafe { libc::sigaltstack(null(), stack.as_mut_ptr()) } == 0;
        // SAFETY: written, since the call went well.
        is_told.then(|| unsafe { stack.assume_init() })
    }

    fn take() {
        // Somebody else's, `faulthandler`'s for one, is as good.
        if present().is_some_and(|stack| stack.ss_flags & libc::SS_DISABLE != 0) {
            OWN.with_borrow_mut(|own| *own = Stack::take());
        }
    }

    pub(super) fn take_on_all(openmp: usize) {
        take();
        if openmp != 0 {
            // SAFETY: what the .pyi asks of callers.
            unsafe { TorchThreads::at(openmp) }.run(usize::MAX, &take);
        }
    }
}
