#![expect(unsafe_code, reason = "an allocator hands out raw memory")]

use std::alloc::{GlobalAlloc, Layout};

use tikv_jemallocator::Jemalloc;

/// From this size on a zeroed buffer is taken for one that requests are read into; fuser's have 16 MiB.
const LARGE_BYTES: usize = 1 << 20;

/// The smallest page of any machine.
const PAGE_BYTES: usize = 4096;

/// Requests of a read-only file system are a header and at most two names.
const TOUCHED_BYTES: usize = 4 * PAGE_BYTES;

/// See the module.
#[derive(Clone, Copy, Debug, Default)]
pub struct Allocator;

// SAFETY: all is jemalloc's, which is a global allocator; bytes are written only within what it has just given out.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are jemalloc's conditions.
        unsafe { Jemalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller's promises are jemalloc's conditions.
        let memory = unsafe { Jemalloc.alloc_zeroed(layout) };
        if layout.size() >= LARGE_BYTES && !memory.is_null() {
            for offset in (0..TOUCHED_BYTES).step_by(PAGE_BYTES) {
                // SAFETY: the memory has `LARGE_BYTES` at least, which is more, and is nobody else's yet.
                unsafe { memory.add(offset).write_volatile(0) };
            }
        }
        memory
    }

    unsafe fn realloc(&self, memory: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller's promises are jemalloc's conditions.
        unsafe { Jemalloc.realloc(memory, layout, size) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: the caller's promises are jemalloc's conditions.
        unsafe { Jemalloc.dealloc(memory, layout) }
    }
}
