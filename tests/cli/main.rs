//! What operators read, as text files beside this: `REWRITE=1 cargo test --test cli` writes them
//! anew, for a reviewer to read the difference.

mod example;
mod golden;
mod status;
mod words;
