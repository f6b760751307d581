//! What the core asks of the process that it runs in.

#![expect(clippy::inline_always, reason = "fetches stand in innermost loops")]

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes that one fetch brings.
pub(crate) const LINE: usize = 64;

/// Threads and caches: the first may be there already, and std has no safe way to the second.
pub trait Host: Sync {
    /// Calls `work` once on each of some threads, the calling one and at most `threads` in all, and returns when all
    /// calls have.
    ///
    /// The work must share itself out: how many threads come to it is up to the host.
    fn run(&self, threads: usize, work: &(dyn Fn() + Sync));

    /// Multiply-adds that are worth another thread.
    fn worth_a_thread(&self) -> u128;

    /// Has the line of memory at an address, which need not be one of something, fetched into a cache, if the host can: it
    /// will be read soon.
    fn prefetch<T>(&self, place: *const T, into: Cache);
}

/// Where to fetch something: how soon it will be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cache {
    /// Within a hundred cycles.
    First,
    /// Within some thousands.
    Second,
}

/// Threads started for each piece of work.
///
/// Where torch's own threads still spin on the other cores after its last product, a new one shares its core with one of
/// them, so that little work is done sooner alone.
#[derive(Clone, Copy, Debug)]
pub struct NewThreads;

impl Host for NewThreads {
    fn run(&self, threads: usize, work: &(dyn Fn() + Sync)) {
        thread::scope(|scope| {
            // Where no further thread is to be had, the others do its work.
            let helpers: Vec<_> =
                (1..threads).filter_map(|_| thread::Builder::new().spawn_scoped(scope, work).ok()).collect();
            work();
            for helper in helpers {
                if let Err(panic) = helper.join() {
                    std::panic::resume_unwind(panic);
                }
            }
        });
    }

    fn worth_a_thread(&self) -> u128 {
        1 << 25
    }

    fn prefetch<T>(&self, _: *const T, _: Cache) {}
}

/// How many threads some work is worth.
pub(crate) fn worthwhile(host: &impl Host, multiply_adds: u128, threads: usize) -> usize {
    threads.min(usize::try_from(multiply_adds / host.worth_a_thread()).unwrap_or(usize::MAX)).max(1)
}

/// Calls `work` on some threads; on this one alone, without asking the host, where that is all.
pub(crate) fn run_on(host: &impl Host, threads: usize, work: &(dyn Fn() + Sync)) {
    if threads <= 1 {
        work();
    } else {
        host.run(threads, work);
    }
}

/// Memory to be fetched into the second-level cache, some at a time: all at once it would stand in the way of what is read
/// meanwhile.
pub(crate) struct Fetches<'a, T> {
    rest: &'a [T],
    step: usize,
}

impl<'a, T> Fetches<'a, T> {
    /// As much of it each time that so many times suffice.
    #[inline(always)]
    pub(crate) fn new(all: &'a [T], times: usize) -> Self {
        Self { rest: all, step: all.len().div_ceil(times.max(1)) }
    }

    /// The next part of it: to be fetched, or handed on.
    #[inline(always)]
    pub(crate) fn next(&mut self) -> &'a [T] {
        let (part, rest) = self.rest.split_at(self.step.min(self.rest.len()));
        self.rest = rest;
        part
    }

    /// Fetches the next part.
    #[inline(always)]
    pub(crate) fn fetch(&mut self, host: &impl Host) {
        for item in self.next() {
            for byte in (0..size_of::<T>()).step_by(LINE) {
                host.prefetch((&raw const *item).cast::<u8>().wrapping_add(byte), Cache::Second);
            }
        }
    }
}

/// Pieces of work, which threads take one after another.
pub(crate) struct Pieces<T> {
    pieces: Vec<Mutex<T>>,
    next: AtomicUsize,
}

impl<T> Pieces<T> {
    pub(crate) fn len(&self) -> usize {
        self.pieces.len()
    }

    /// The next piece; none once all are taken.
    pub(crate) fn take(&self) -> Option<MutexGuard<'_, T>> {
        let piece = self.pieces.get(self.next.fetch_add(1, Ordering::Relaxed))?;
        // Nobody else waits for it, so whoever panicked over it has nothing more to say.
        Some(piece.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// All pieces, as they were left, in the order in which they came.
    pub(crate) fn into_inner(self) -> impl Iterator<Item = T> {
        self.pieces.into_iter().map(|piece| piece.into_inner().unwrap_or_else(PoisonError::into_inner))
    }
}

impl<T> FromIterator<T> for Pieces<T> {
    fn from_iter<I: IntoIterator<Item = T>>(pieces: I) -> Self {
        Self { pieces: pieces.into_iter().map(Mutex::new).collect(), next: AtomicUsize::new(0) }
    }
}

/// As many threads as it may, so that small cases in tests meet them too.
#[cfg(test)]
pub(crate) struct Eager;

#[cfg(test)]
impl Host for Eager {
    fn run(&self, threads: usize, work: &(dyn Fn() + Sync)) {
        NewThreads.run(threads, work);
    }

    fn worth_a_thread(&self) -> u128 {
        1
    }

    fn prefetch<T>(&self, _: *const T, _: Cache) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_fetches_as_were_told_bring_all() {
        for length in 0..40 {
            let all: Vec<usize> = (0..length).collect();
            for times in 1..50 {
                let mut fetches = Fetches::new(&all, times);
                let brought: Vec<_> = (0..times).flat_map(|_| fetches.next()).copied().collect();
                assert_eq!(brought, all);
                assert!(fetches.next().is_empty());
            }
        }
    }
}
