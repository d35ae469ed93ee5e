//! The shell as its users meet it: over a socket, from a command line, on a real Postgres.

mod cli;
mod http;
mod postgres;
