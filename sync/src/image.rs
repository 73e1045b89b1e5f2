//! A whole namespace as plain rows: what the store hands to a mount at promotion.

use crate::op::Attributes;
use crate::position::{FileId, Position};

/// Every file of a volume at one position.
///
/// Rows are in no particular order. `entries` reaches every node but the root and the orphans;
/// an orphan (`nlink` 0) was open when its leader died, and the next leader begins by recording
/// it as gone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// The last op that it holds.
    pub position: Position,
    /// Every file, the root among them.
    pub nodes: Vec<(FileId, Attributes)>,
    /// `(directory, name, file)`.
    pub entries: Vec<(FileId, Vec<u8>, FileId)>,
    /// `(file, full name, value)`.
    pub xattrs: Vec<(FileId, Vec<u8>, Vec<u8>)>,
}
