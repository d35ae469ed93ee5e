//! Sentences about paths that only some definitions have.

mod parallel;
mod unresolved;
