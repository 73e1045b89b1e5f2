//! A file in memory, as programs map it.

use std::fs::File;

use rustix::mm::{MapFlags, MsyncFlags, ProtFlags, mmap, msync, munmap};

/// A shared, writable mapping of a file.
pub struct Mapping {
    start: *mut u8,
    length: usize,
}

impl Mapping {
    pub fn new(file: &File, length: usize) -> Mapping {
        let access = ProtFlags::READ | ProtFlags::WRITE;
        // SAFETY: a new mapping at a place of the kernel's choice; nothing else lies there.
        let start =
            unsafe { mmap(std::ptr::null_mut(), length, access, MapFlags::SHARED, file, 0) };
        Mapping { start: start.unwrap().cast(), length }
    }

    pub fn store(&self, at: usize, bytes: &[u8]) {
        assert!(at + bytes.len() <= self.length);
        // SAFETY: within the mapping, as just checked; `bytes` is not part of it.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.start.add(at), bytes.len()) };
    }

    pub fn load(&self, at: usize, length: usize) -> Vec<u8> {
        assert!(at + length <= self.length);
        // SAFETY: within the mapping, as just checked.
        unsafe { std::slice::from_raw_parts(self.start.add(at), length) }.to_vec()
    }

    pub fn sync(&self) {
        // SAFETY: exactly this mapping.
        let synced = unsafe { msync(self.start.cast(), self.length, MsyncFlags::SYNC) };
        synced.unwrap();
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: exactly this mapping, which nobody uses after its owner.
        let _ = unsafe { munmap(self.start.cast(), self.length) };
    }
}
