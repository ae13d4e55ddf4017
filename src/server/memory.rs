//! Gives memory back to the system that is free, or can be had again. The one file with `unsafe` code, see ADR 12.

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

/// Takes the pages of the program itself out of this process's memory, those that are never written: code and constants. Most were
/// needed by the start alone. A page that is needed again comes from the page cache, which takes microseconds.
#[cfg(target_os = "linux")]
pub(super) fn forget_program() {
    #[expect(unsafe_code, reason = "there is no safe function for it")]
    // SAFETY: the function may be called at any time, and calls back before it returns.
    unsafe {
        libc::dl_iterate_phdr(Some(forget_segments), std::ptr::null_mut());
    }
}

/// Called with the first object that is loaded, which is the program; ends there.
#[cfg(target_os = "linux")]
extern "C" fn forget_segments(
    object: *mut libc::dl_phdr_info,
    _size: libc::size_t,
    _data: *mut libc::c_void,
) -> libc::c_int {
    #[expect(unsafe_code, reason = "there is no safe function for it that works under valgrind")]
    // SAFETY: `sysconf` may be called at any time. The object and its headers are valid during the call
    // (dl_iterate_phdr(3)). The pages that are given back are whole ones of segments that are mapped from a file and not writable,
    // so that what is in them is what the file has: relocations are in writable segments, since linkers refuse others
    // (`-z text`). Other threads that read or run them wait for the page. Where the system cannot do it, the call fails and
    // nothing happens.
    unsafe {
        let Some(object) = object.as_ref() else { return 1 };
        let Ok(page) = usize::try_from(libc::sysconf(libc::_SC_PAGESIZE)) else { return 1 };
        let headers = std::slice::from_raw_parts(object.dlpi_phdr, object.dlpi_phnum.into());
        for header in headers {
            if header.p_type != libc::PT_LOAD || header.p_flags & libc::PF_W != 0 {
                continue;
            }
            let start = (object.dlpi_addr + header.p_vaddr) as usize;
            let (first, end) =
                (start.next_multiple_of(page), (start + header.p_memsz as usize) / page * page);
            if first < end {
                libc::madvise(first as *mut libc::c_void, end - first, libc::MADV_DONTNEED);
            }
        }
    }
    1
}

/// Does nothing: how a program is mapped is known of Linux alone.
#[cfg(not(target_os = "linux"))]
pub(super) const fn forget_program() {}

/// Does nothing: the allocator has rules of its own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub const fn keep_little() {}

/// Does nothing: the allocator has rules of its own.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) const fn give_back() {}

#[cfg(test)]
mod tests {
    /// KiB in memory of the code of this program.
    #[cfg(target_os = "linux")]
    fn resident_code() -> u64 {
        let program = std::env::current_exe().unwrap();
        let program = program.to_str().unwrap();
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let code = maps.lines().skip_while(|line| !(line.contains(" r-xp ") && line.ends_with(program)));
        let resident = code.filter_map(|line| line.strip_prefix("Rss:")).next().unwrap();
        resident.trim().trim_end_matches(" kB").parse().unwrap()
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn code_that_was_run_is_forgotten_and_runs_again() {
        let before = resident_code();
        super::forget_program();
        let after = resident_code();
        assert!(after < before, "{before} KiB before, {after} after");
        assert_eq!(crate::hex::encode(&[0xab]), "ab");
    }
}
