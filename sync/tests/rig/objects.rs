//! Objects as plain files, and records applied to them.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use mainstay_sync::journal::Objects;
use mainstay_sync::op::{Change, Kind, Record};
use mainstay_sync::position::FileId;
use rustix::fs::{FallocateFlags, SeekFrom, fallocate, seek};

pub struct TestObjects {
    dir: PathBuf,
}

impl TestObjects {
    pub fn new(dir: &Path) -> TestObjects {
        fs::create_dir_all(dir).unwrap();
        TestObjects { dir: dir.to_owned() }
    }

    fn path(&self, id: FileId) -> PathBuf {
        self.dir.join(format!("{:x}", id.0))
    }

    fn open(&self, id: FileId) -> io::Result<Option<File>> {
        match File::open(self.path(id)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn writable(&self, id: FileId) -> File {
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).open(self.path(id)).unwrap()
    }

    pub fn apply(&self, record: &Record) {
        let mut taken = 0;
        for change in &record.head.changes {
            match change {
                Change::Write { id, offset, length } => {
                    let end = taken + *length as usize;
                    let bytes = &record.payload[taken..end];
                    self.writable(*id).write_all_at(bytes, *offset).unwrap();
                    taken = end;
                }
                Change::Zero { id, offset, length } => {
                    let how = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                    fallocate(self.writable(*id), how, *offset, *length).unwrap();
                }
                Change::Node { id, attributes } if attributes.kind == Kind::File => {
                    let Ok(metadata) = fs::metadata(self.path(*id)) else { continue };
                    if metadata.len() > attributes.size {
                        self.writable(*id).set_len(attributes.size).unwrap();
                    }
                }
                Change::Gone { id } => {
                    let _ = fs::remove_file(self.path(*id));
                }
                _ => {}
            }
        }
        assert_eq!(taken, record.payload.len(), "a payload is as long as its writes");
    }
}

impl Objects for TestObjects {
    fn read_at(&self, id: FileId, offset: u64, into: &mut [u8]) -> io::Result<usize> {
        let Some(file) = self.open(id)? else { return Ok(0) };
        let mut got = 0;
        while got < into.len() {
            match file.read_at(&mut into[got..], offset + got as u64)? {
                0 => break,
                more => got += more,
            }
        }
        Ok(got)
    }

    fn seek(&self, id: FileId, offset: u64, data: bool) -> io::Result<Option<u64>> {
        let Some(file) = self.open(id)? else { return Ok(None) };
        let to = if data { SeekFrom::Data(offset) } else { SeekFrom::Hole(offset) };
        match seek(&file, to) {
            Ok(found) => Ok(Some(found)),
            Err(rustix::io::Errno::NXIO) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    fn allocated(&self, id: FileId) -> io::Result<u64> {
        Ok(self.open(id)?.map_or(0, |file| file.metadata().map_or(0, |seen| seen.blocks() * 512)))
    }

    fn space(&self) -> io::Result<(u64, u64, u64, u64)> {
        let seen = rustix::fs::statvfs(&self.dir)?;
        Ok((seen.f_frsize, seen.f_blocks, seen.f_bfree, seen.f_bavail))
    }
}
