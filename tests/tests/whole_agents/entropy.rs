//! Chance that a seed decides, for the thread that a simulation runs in.
//!
//! ring (keys of handshakes), rand's thread generator (chitchat, quinn, the agent) and the hash
//! maps of the standard library all draw from the kernel, by libc's `getrandom` or by `syscall`. So
//! that one seed means one world to the last byte, this test's binary has its own versions of these
//! two functions. A thread that was not seeded gets what the kernel gives, and every other system
//! call goes through.
#![expect(
    unsafe_code,
    reason = "there is no other way to stand between a library and the kernel's randomness"
)]

use std::cell::RefCell;
use std::ffi::{CStr, c_char, c_int, c_long, c_uint, c_void};
use std::mem::transmute;
use std::slice;
use std::sync::atomic::{AtomicUsize, Ordering};

use peerage_tests::sim::dice::Dice;

/// The number of the system call.
#[cfg(target_arch = "x86_64")]
const SYS_GETRANDOM: c_long = 318;
#[cfg(not(target_arch = "x86_64"))]
const SYS_GETRANDOM: c_long = 278;

/// Asks for the symbol that would have been found without this binary's.
const RTLD_NEXT: *mut c_void = -1_isize as *mut c_void;

type Getrandom = unsafe extern "C" fn(*mut c_void, usize, c_uint) -> isize;
type Syscall =
    unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

thread_local! {
    static DICE: RefCell<Option<Dice>> = const { RefCell::new(None) };
}

/// From now on, all that this thread draws follows from the seed.
pub(crate) fn seed_this_thread(seed: u64) {
    DICE.with_borrow_mut(|dice| *dice = Some(Dice::new(seed)));
}

unsafe extern "C" {
    fn dlsym(handle: *mut c_void, symbol: *const c_char) -> *mut c_void;
    fn __errno_location() -> *mut c_int;
}

/// Fills the buffer if this thread was seeded.
fn drawn(buffer: &mut [u8]) -> bool {
    DICE.with_borrow_mut(|dice| {
        let Some(dice) = dice else { return false };
        for chunk in buffer.chunks_mut(8) {
            chunk.copy_from_slice(&dice.draw().to_le_bytes()[..chunk.len()]);
        }
        true
    })
}

/// The function of libc that this binary's function of that name hides, looked up once. No lock
/// guards it: locks wait by `syscall`, which is one of the two.
fn behind(symbol: &CStr, found: &AtomicUsize) -> usize {
    match found.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: the name ends with a zero byte, and the handle is one that dlsym knows.
            let next = unsafe { dlsym(RTLD_NEXT, symbol.as_ptr()) as usize };
            assert_ne!(next, 0, "libc has this function");
            found.store(next, Ordering::Relaxed);
            next
        }
        next => next,
    }
}

/// Stands in for libc's function, by which random bytes of the kernel are asked for.
///
/// # Safety
/// As of `getrandom(2)`: `buffer` takes `len` bytes.
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if len > 0 && !buffer.is_null() {
        // SAFETY: the caller owns `len` bytes there, as it would tell the kernel.
        let buffer = unsafe { slice::from_raw_parts_mut(buffer.cast::<u8>(), len) };
        if drawn(buffer) {
            return len as isize;
        }
    }
    let next = behind(c"getrandom", &NEXT);
    // SAFETY: libc's function of this name has this signature, and gets what this one got.
    unsafe { transmute::<usize, Getrandom>(next)(buffer, len, flags) }
}

/// Stands in for libc's function, by which system calls without a function of their own are made.
/// The arguments of a variadic function lie in the same registers as those of this one; arguments
/// that a call does not have are passed on unread.
///
/// # Safety
/// As of `syscall(2)`.
#[unsafe(no_mangle)]
unsafe extern "C" fn syscall(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
    f: c_long,
) -> c_long {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    if number == SYS_GETRANDOM && b > 0 && a != 0 {
        // SAFETY: the arguments of this call are a buffer and its length.
        let buffer = unsafe { slice::from_raw_parts_mut(a as *mut u8, b as usize) };
        if drawn(buffer) {
            return b;
        }
    }
    let next = behind(c"syscall", &NEXT);
    // SAFETY: libc's function of this name takes a number and up to six words.
    unsafe { transmute::<usize, Syscall>(next)(number, a, b, c, d, e, f) }
}
