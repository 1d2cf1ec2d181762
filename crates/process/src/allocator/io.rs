#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};

use tikv_jemallocator::Jemalloc;

/// Smallest zeroed buffer treated as one for FUSE requests; fuser's have 16 MiB.
const LARGE_BYTES: usize = 1 << 20;

/// Smallest page size of any machine.
const PAGE_BYTES: usize = 4096;

/// Bytes touched: requests of a read-only file system are a header and at most two names.
const TOUCHED_BYTES: usize = 4 * PAGE_BYTES;

/// The allocator.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

// SAFETY: all calls go to jemalloc, a global allocator; bytes are written only within memory it has just returned.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees are jemalloc's conditions.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's guarantees are jemalloc's conditions.
        let memory = unsafe { Jemalloc.alloc_zeroed(layout) };
        if layout.size() >= LARGE_BYTES && !memory.is_null() {
            for offset in (0..TOUCHED_BYTES).step_by(PAGE_BYTES) {
                // SAFETY: the memory has at least `LARGE_BYTES`, which is more, and no other reference to it exists yet.
                unsafe { memory.add(offset).write_volatile(0) };
            }
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's guarantees are jemalloc's conditions.
        unsafe { Jemalloc.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's guarantees are jemalloc's conditions.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }
}
