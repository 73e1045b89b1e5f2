//! Mainstay: sync.
