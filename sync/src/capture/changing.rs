//! Requests that change something: which plan, and what the answer tells.

use std::sync::Arc;

use bytes::Bytes;
use fuser::ReplyWrite;
use fuser::{FileHandle, FopenFlags, Generation, ReplyAttr, ReplyCreate, ReplyEmpty, ReplyEntry};
use rustix::io::Errno;

use super::filesystem::TTL;
use super::live::{Failure, Live, Status};
use super::serve::Capture;
use super::stat::now;
use crate::namespace::attributes::Wanted;
use crate::namespace::data::{Allocate, Range};
use crate::namespace::{Caller, Place, Plan, attributes, data, make, remove, rename, xattr};
use crate::op::{Kind, Time};
use crate::position::FileId;

/// A [`Place`] that outlives its request.
pub(super) struct Name {
    pub(super) parent: FileId,
    pub(super) name: Vec<u8>,
}

impl Name {
    fn place(&self) -> Place<'_> {
        Place { parent: self.parent, name: &self.name }
    }

    fn bytes(&self) -> u64 {
        self.name.len() as u64
    }
}

fn entry(capture: &Capture, reply: ReplyEntry, status: Status) {
    reply.entry(&TTL, &capture.attr(&status), Generation(0));
}

fn done(_: &Capture, reply: ReplyEmpty, (): ()) {
    reply.ok();
}

/// Records a plan that has no bytes.
fn record(live: &mut Live, at: Time, plan: Plan) -> Result<(), Failure> {
    Ok(live.record(at, plan, Bytes::new())?)
}

fn make_now(
    live: &mut Live,
    at: Time,
    place: &Name,
    kind: Kind,
    mode: u16,
    owner: Caller,
) -> Result<FileId, Failure> {
    let new = make::New { id: live.new_id(), kind, mode, owner };
    let id = new.id;
    let plan = make::make(&live.tree, &place.place(), new, at)?;
    record(live, at, plan)?;
    Ok(id)
}

pub(super) fn make(
    capture: &Arc<Capture>,
    place: Name,
    kind: Kind,
    mode: u16,
    owner: Caller,
    reply: ReplyEntry,
) {
    let bytes = place.bytes();
    let plan = move |live: &mut Live, at| {
        let id = make_now(live, at, &place, kind, mode, owner)?;
        Ok(live.status(id)?)
    };
    capture.change(reply, bytes, plan, entry);
}

pub(super) fn create(
    capture: &Arc<Capture>,
    place: Name,
    mode: u16,
    owner: Caller,
    exclusive: bool,
    reply: ReplyCreate,
) {
    let bytes = place.bytes();
    let plan = move |live: &mut Live, at| {
        // The kernel asks to create what it knows not to exist; a file that does is opened.
        let id = match live.tree.child(place.parent, &place.name) {
            Some(_) if exclusive => return Err(Errno::EXIST.into()),
            Some(id) => id,
            None => make_now(live, at, &place, Kind::File, mode, owner)?,
        };
        let status = live.status(id)?;
        match status.attributes.kind {
            Kind::File => live.opened(id),
            _ => return Err(Errno::EXIST.into()),
        }
        Ok(status)
    };
    capture.change(reply, bytes, plan, |capture, reply, status: Status| {
        let attr = capture.attr(&status);
        let flags = FopenFlags::FOPEN_KEEP_CACHE;
        reply.created(&TTL, &attr, Generation(0), FileHandle(0), flags);
    });
}

pub(super) fn link(capture: &Arc<Capture>, id: FileId, place: Name, reply: ReplyEntry) {
    let plan = move |live: &mut Live, at| {
        let plan = make::link(&live.tree, id, &place.place(), at)?;
        record(live, at, plan)?;
        Ok(live.status(id)?)
    };
    capture.change(reply, 0, plan, entry);
}

pub(super) fn unlink(capture: &Arc<Capture>, place: Name, reply: ReplyEmpty) {
    let plan = move |live: &mut Live, at| {
        let plan = remove::unlink(&live.tree, &place.place(), |id| live.is_open(id), at)?;
        record(live, at, plan)
    };
    capture.change(reply, 0, plan, done);
}

pub(super) fn rmdir(capture: &Arc<Capture>, place: Name, reply: ReplyEmpty) {
    let plan = move |live: &mut Live, at| {
        let plan = remove::rmdir(&live.tree, &place.place(), |id| live.is_open(id), at)?;
        record(live, at, plan)
    };
    capture.change(reply, 0, plan, done);
}

pub(super) fn rename(
    capture: &Arc<Capture>,
    from: Name,
    to: Name,
    mode: rename::Mode,
    reply: ReplyEmpty,
) {
    let plan = move |live: &mut Live, at| {
        let open = |id| live.is_open(id);
        let plan = rename::rename(&live.tree, &from.place(), &to.place(), mode, open, at)?;
        record(live, at, plan)
    };
    capture.change(reply, 0, plan, done);
}

pub(super) fn set_attributes(
    capture: &Arc<Capture>,
    id: FileId,
    wanted: Wanted,
    caller: Caller,
    reply: ReplyAttr,
) {
    let plan = move |live: &mut Live, at| {
        let plan = attributes::set(&live.tree, id, &wanted, caller, at)?;
        record(live, at, plan)?;
        Ok(live.status(id)?)
    };
    capture.change(reply, 0, plan, |capture, reply, status: Status| {
        reply.attr(&TTL, &capture.attr(&status));
    });
}

pub(super) fn write(
    capture: &Arc<Capture>,
    id: FileId,
    offset: u64,
    bytes: Bytes,
    strip: bool,
    reply: ReplyWrite,
) {
    let length = bytes.len() as u64;
    let plan = move |live: &mut Live, at| {
        let range = Range { offset, length };
        let plan = data::write(&live.tree, id, range, strip, at)?;
        let written = u32::try_from(length).map_err(|_| Errno::INVAL)?;
        live.record(at, plan, bytes)?;
        Ok(written)
    };
    capture.change(reply, length, plan, |_, reply, written| reply.written(written));
}

pub(super) fn allocate(
    capture: &Arc<Capture>,
    id: FileId,
    range: Range,
    how: Allocate,
    strip: bool,
    reply: ReplyEmpty,
) {
    let plan = move |live: &mut Live, at| {
        let plan = data::allocate(&live.tree, id, range, how, strip, at)?;
        record(live, at, plan)
    };
    capture.change(reply, 0, plan, done);
}

pub(super) fn set_xattr(
    capture: &Arc<Capture>,
    id: FileId,
    (name, value): (Vec<u8>, Vec<u8>),
    mode: xattr::Mode,
    reply: ReplyEmpty,
) {
    let bytes = value.len() as u64;
    let plan = move |live: &mut Live, at| {
        let plan = xattr::set(&live.tree, id, (&name, &value), mode, at)?;
        record(live, at, plan)
    };
    capture.change(reply, bytes, plan, done);
}

pub(super) fn remove_xattr(capture: &Arc<Capture>, id: FileId, name: Vec<u8>, reply: ReplyEmpty) {
    let plan = move |live: &mut Live, at| {
        let plan = xattr::remove(&live.tree, id, &name, at)?;
        record(live, at, plan)
    };
    capture.change(reply, 0, plan, done);
}

impl Capture {
    /// Somebody opens `id`.
    pub(super) fn open(&self, id: FileId) -> Result<(), Errno> {
        let mut live = self.live();
        live.tree.attributes(id).ok_or(Errno::STALE)?;
        live.opened(id);
        Ok(())
    }

    /// Somebody closed `id`.
    pub(super) fn close(&self, id: FileId) {
        if let Err(refused) = self.live().closed(id, now()) {
            // Nobody has a name or a handle for it any more; the next leader clears it away.
            tracing::debug!(file = id.0, %refused, "an unlinked file stays for now");
        }
    }
}
