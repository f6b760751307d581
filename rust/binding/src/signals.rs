//! A stack for signal handlers.

use pyo3::prelude::*;

#[pyfunction]
pub(crate) fn take_signal_stack() -> bool {
    #[cfg(unix)]
    return unix::take_signal_stack();
    #[cfg(not(unix))]
    return false;
}

#[cfg(unix)]
#[expect(unsafe_code, reason = "a call into the system's library")]
mod unix {
    use std::mem::MaybeUninit;
    use std::ptr::{null, null_mut};

    /// What a CPU keeps of its registers takes eleven kilobytes at most, AMX's tiles included; the rest is for handlers of
    /// other libraries. The system gives memory to those pages alone that are written.
    const BYTES: usize = 256 << 10;

    pub(super) fn take_signal_stack() -> bool {
        let mut present = MaybeUninit::<libc::stack_t>::uninit();
        // SAFETY: asks alone, and writes a `stack_t` where one fits.
        if unsafe { libc::sigaltstack(null(), present.as_mut_ptr()) } != 0 {
            return false;
        }
        // SAFETY: written, since the call went well.
        if unsafe { present.assume_init() }.ss_flags & libc::SS_DISABLE == 0 {
            return true; // somebody else's, `faulthandler`'s for one
        }
        let stack = Box::into_raw(vec![0_u8; BYTES].into_boxed_slice());
        let stack_of_ours = libc::stack_t { ss_sp: stack.cast(), ss_flags: 0, ss_size: BYTES };
        // SAFETY: memory of that size, which nobody else has and, if the system takes it, nobody will ever free.
        let is_taken = unsafe { libc::sigaltstack(&raw const stack_of_ours, null_mut()) } == 0;
        if !is_taken {
            // SAFETY: of the box above, and not taken by the system.
            drop(unsafe { Box::from_raw(stack) });
        }
        is_taken
    }
}
