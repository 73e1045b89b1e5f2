//! The configuration: one TOML file, each of whose keys the environment can override.
//!
//! [`Document::load`] reads and checks single values against [`schema::SCHEMA`]; then
//! [`Document::run`] and its siblings build what one command needs. Whatever is wrong is said all
//! at once, since an operator who learns of one mistake per start loses patience.
//!
//! Hazard: secrets. They are in [`SecretText`], which prints nothing, and in the coordinator's
//! address, which may hold a password: [`without_password`] before it is shown.

mod build;
mod document;
mod kind;
mod problem;
pub mod schema;
mod types;

pub use document::{Document, without_password};
pub use kind::{Kind, Value, size_text, span_text};
pub use problem::{ConfigError, Problem, Source};
pub use types::*;

#[cfg(test)]
mod tests;
