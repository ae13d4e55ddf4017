//! Gives memory that is free back to the system. The one file with `unsafe` code, see ADR 12.

/// Free memory at the end of an arena that is kept for later, and the size from which a block has pages of
/// its own, in bytes.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const KEPT: (libc::c_int, libc::c_int) = (1 << 20, 1 << 20);

/// Fixes how much free memory the allocator keeps: otherwise glibc keeps twice the largest block that was
/// ever freed, in each arena. To be called before the first thread starts.
///
/// Does nothing where the allocator is not glibc's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub fn keep_little() {
    #[expect(unsafe_code, reason = "there is no safe function for it")]
    // SAFETY: `mallopt` takes two numbers and changes settings of the allocator. The manual page asks for no
    // other thread meanwhile, and it is called before the first one starts.
    unsafe {
        libc::mallopt(libc::M_TRIM_THRESHOLD, KEPT.0);
        libc::mallopt(libc::M_MMAP_THRESHOLD, KEPT.1);
    }
}

/// Gives the free pages of all of the allocator's arenas back to the system.
///
/// Takes milliseconds, and allocations of other threads may wait for it that long, so it is called after
/// rare, large work alone. Does nothing where the allocator is not glibc's.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back() {
    #[expect(unsafe_code, reason = "there is no safe function for it")]
    // SAFETY: any thread may call `malloc_trim` at any time (MT-Safe in its manual page). It takes a number,
    // and gives back pages alone that hold no allocation.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// Does nothing: the allocator has rules of its own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn keep_little() {}

/// Does nothing: the allocator has rules of its own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) const fn give_back() {}
