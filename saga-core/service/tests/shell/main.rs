//! Tests the shell as its users see it: over a socket and from a command line.

mod cli;
mod http;
