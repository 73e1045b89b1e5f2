//! A bounded set of open objects.

use std::collections::HashMap;
use std::fs::File;
use std::sync::Arc;

use crate::position::FileId;

/// Open objects by id; past the bound the half that was used longest ago is closed.
pub struct Descriptors {
    open: HashMap<FileId, (Arc<File>, u64)>,
    bound: usize,
    clock: u64,
}

impl Descriptors {
    /// Room for `bound` descriptors, at least two.
    #[must_use]
    pub fn new(bound: usize) -> Descriptors {
        Descriptors { open: HashMap::new(), bound: bound.max(2), clock: 0 }
    }

    /// The open object, if it is.
    pub fn get(&mut self, id: FileId) -> Option<Arc<File>> {
        self.clock += 1;
        let (file, used) = self.open.get_mut(&id)?;
        *used = self.clock;
        Some(Arc::clone(file))
    }

    /// Keeps `file` open.
    pub fn put(&mut self, id: FileId, file: Arc<File>) {
        if self.open.len() >= self.bound {
            self.close_half();
        }
        self.clock += 1;
        self.open.insert(id, (file, self.clock));
    }

    /// Closes one, as its object goes.
    pub fn remove(&mut self, id: FileId) {
        self.open.remove(&id);
    }

    /// Sorting now and then is cheaper than keeping an order at every use.
    fn close_half(&mut self) {
        let mut uses: Vec<u64> = self.open.values().map(|(_, used)| *used).collect();
        uses.sort_unstable();
        let middle = uses[uses.len() / 2];
        self.open.retain(|_, (_, used)| *used > middle);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_holds_and_the_recent_stay() {
        let file = Arc::new(tempfile::tempfile().unwrap());
        let mut descriptors = Descriptors::new(4);
        for id in 1..=20 {
            descriptors.put(FileId(id), Arc::clone(&file));
            assert!(descriptors.get(FileId(id)).is_some());
            assert!(descriptors.open.len() <= 4);
        }
        assert!(descriptors.get(FileId(1)).is_none());
        descriptors.remove(FileId(20));
        assert!(descriptors.get(FileId(20)).is_none());
    }
}
