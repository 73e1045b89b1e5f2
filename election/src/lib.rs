//! Mainstay: election.
