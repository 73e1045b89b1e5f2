//! Mainstay: ambassador.
