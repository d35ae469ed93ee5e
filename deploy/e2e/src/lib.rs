//! Chaos runs the real services under faults from a seed, and audits the result. The end-to-end tests are in `tests/`.

pub mod chaos;
