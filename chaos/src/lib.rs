//! Mainstay: chaos.
