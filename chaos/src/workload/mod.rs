//! Writers that remember what they were told, and what must then be there.

pub mod appends;
pub mod check;
pub mod churn;
pub mod client;
pub mod history;
pub mod mariadb;
pub mod registers;
pub mod tree;
pub mod writers;

pub use check::{Verdict, check};
pub use client::Client;
pub use history::{History, Outcome, ServerId, Way, Write};
pub use writers::Writers;
